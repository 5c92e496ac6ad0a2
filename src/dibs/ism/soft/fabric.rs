//! A fabric in software.

use std::{
    io, mem,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{Counters, Fault, SoftFunction, model::Model};
use crate::dibs::{Chid, Gid, PnetId, eventfd::Eventfd, ism::transport::Description};

/// What the functions of a fabric are like.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct SoftIsmSettings {
    /// How many there are.
    pub functions: usize,
    /// The fabric, a PCHID.
    pub fabric: Chid,
    /// Addresses at which they can be given memory.
    pub window: Range<u64>,
    /// Bytes of the longest store block, at most 4096.
    pub max_store: usize,
    /// The physical network that they belong to.
    pub pnetid: Option<PnetId>,
    /// Whether they refuse to be asked for each other in no VLAN.
    pub needs_vlan: bool,
}

/// Two functions, with room for 4 GiB of DMBs each.
impl Default for SoftIsmSettings {
    fn default() -> Self {
        Self {
            functions: 2,
            fabric: Chid(0x07c0),
            window: 1 << 32..2 << 32,
            max_store: 4096,
            pnetid: None,
            needs_vlan: false,
        }
    }
}

/// Functions on one fabric. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SoftIsm(Arc<Mutex<Model>>);

impl SoftIsm {
    /// A new fabric.
    ///
    /// # Errors
    /// If the system has no random numbers: each function has a GID.
    pub fn new(settings: &SoftIsmSettings) -> io::Result<Self> {
        let description = Description {
            fabric: settings.fabric,
            window: settings.window.clone(),
            max_store: settings.max_store.clamp(1, 4096),
            pnetid: settings.pnetid,
        };
        Ok(Self(Arc::new(Mutex::new(Model::new(description, settings)?))))
    }

    pub(super) fn model(&self) -> MutexGuard<'_, Model> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a function, as it is after a reset.
    ///
    /// # Errors
    /// `ENODEV` if there is none of this number, `EBUSY` if somebody has it.
    pub fn open(&self, function: usize) -> io::Result<SoftFunction> {
        let end = Arc::new(Eventfd::new()?);
        self.model().open(function, end.clone())?;
        Ok(SoftFunction::new(self.clone(), function, end))
    }

    /// The GID of a function.
    pub fn gid(&self, function: usize) -> Option<Gid> {
        self.model().gid(function).map(|gid| Gid::from_halves(gid, 0))
    }

    /// True if somebody has the function.
    pub fn is_open(&self, function: usize) -> bool {
        self.model().is_open(function)
    }

    /// What a function has done so far.
    pub fn counters(&self, function: usize) -> Counters {
        self.model().counters(function).map(|counters| counters.clone()).unwrap_or_default()
    }

    /// As [`SoftIsm::counters`], and begins anew.
    pub fn take_counters(&self, function: usize) -> Counters {
        self.model().counters(function).map(mem::take).unwrap_or_default()
    }

    /// Makes something go wrong at a function.
    pub fn inject(&self, function: usize, fault: Fault) {
        self.model().inject(function, fault);
    }
}
