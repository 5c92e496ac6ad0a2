//! A device of another process: what the suite asks of it goes there as lines of JSON, by a socket that is the other
//! process' standard input.

use std::{
    io::{self, BufRead, BufReader, Write},
    net::Shutdown,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    process::{Child, Stdio},
    sync::{Arc, Mutex},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use smcd::dibs::{Cause, Chid, Device, DmbToken, Gid};

use super::party::{Buffer, Mapped, Party, Refusal};

/// What is asked. DMBs and mappings are named by the order in which they were made.
#[derive(Debug, Serialize, Deserialize)]
enum Request {
    Describe,
    Query { gid: [u8; 16] },
    Register { user: [u8; 16], len: usize },
    Read { buffer: usize, offset: usize, len: usize },
    GiveBack { buffer: usize },
    Move { token: u64, signal: bool, offset: usize, data: Vec<u8> },
    Attach { owner: [u8; 16], token: u64, len: usize },
    Write { mapped: usize, offset: usize, data: Vec<u8> },
    Ring { mapped: usize, is_data: bool },
    IsHungUp { mapped: usize },
    Detach { mapped: usize },
}

/// The suite's end. The other process ends with this.
pub struct Remote {
    channel: Channel,
    child: Child,
    fabric_id: Chid,
    gid: Gid,
    max_dmbs: usize,
}

impl Remote {
    /// With a process, started by `spawn` with this for its standard input, that runs [`serve`].
    pub fn start(spawn: impl FnOnce(Stdio) -> Child) -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let child = spawn(OwnedFd::from(theirs).into());
        let channel = Channel(Arc::new(Mutex::new(BufReader::new(ours))));
        let (chid, gid, max_dmbs) = channel.ask(&Request::Describe).unwrap();
        Self { channel, child, fabric_id: Chid(chid), gid: Gid::from_bytes(gid), max_dmbs }
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        if let Ok(socket) = self.channel.0.lock() {
            let _ = socket.get_ref().shutdown(Shutdown::Both);
        }
        let _ = self.child.wait();
    }
}

#[derive(Clone)]
struct Channel(Arc<Mutex<BufReader<UnixStream>>>);

impl Channel {
    fn ask<T: DeserializeOwned>(&self, request: &Request) -> Result<T, Refusal> {
        let mut socket = self.0.lock().unwrap();
        put(socket.get_ref(), request).unwrap();
        let mut line = String::new();
        socket.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{request:?}: {line:?}: {error}"))
    }
}

fn put(mut socket: &UnixStream, what: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_string(what)?;
    line.push('\n');
    socket.write_all(line.as_bytes())
}

impl Party for Remote {
    fn fabric_id(&self) -> Chid {
        self.fabric_id
    }

    fn gid(&self) -> Gid {
        self.gid
    }

    fn max_dmbs(&self) -> usize {
        self.max_dmbs
    }

    fn query(&self, gid: Gid) -> Result<(), Refusal> {
        self.channel.ask(&Request::Query { gid: gid.to_bytes() })
    }

    fn register(&self, user: Gid, len: usize) -> Result<Box<dyn Buffer>, Refusal> {
        let (id, token) = self.channel.ask(&Request::Register { user: user.to_bytes(), len })?;
        Ok(Box::new(Theirs { channel: self.channel.clone(), id, token: DmbToken(token) }))
    }

    fn move_data(&self, token: DmbToken, signal: bool, offset: usize, data: &[u8]) -> Result<(), Refusal> {
        self.channel.ask(&Request::Move { token: token.0, signal, offset, data: data.to_owned() })
    }

    fn attach(&self, owner: Gid, token: DmbToken, len: usize) -> Result<Box<dyn Mapped>, Refusal> {
        let request = Request::Attach { owner: owner.to_bytes(), token: token.0, len };
        let (id, gid, token, len) = self.channel.ask(&request)?;
        let identity = (Gid::from_bytes(gid), DmbToken(token), len);
        Ok(Box::new(MappedThere { channel: self.channel.clone(), id, identity }))
    }
}

/// A DMB that the other process owns.
struct Theirs {
    channel: Channel,
    id: usize,
    token: DmbToken,
}

impl Buffer for Theirs {
    fn token(&self) -> DmbToken {
        self.token
    }

    fn read(&self, offset: usize, len: usize) -> Vec<u8> {
        self.channel.ask(&Request::Read { buffer: self.id, offset, len }).unwrap()
    }
}

impl Drop for Theirs {
    fn drop(&mut self) {
        self.channel.ask::<()>(&Request::GiveBack { buffer: self.id }).unwrap();
    }
}

/// A DMB that the other process writes into.
struct MappedThere {
    channel: Channel,
    id: usize,
    identity: (Gid, DmbToken, usize),
}

impl Mapped for MappedThere {
    fn identity(&self) -> (Gid, DmbToken, usize) {
        self.identity
    }

    fn write(&self, offset: usize, data: &[u8]) {
        self.channel.ask(&Request::Write { mapped: self.id, offset, data: data.to_owned() }).unwrap()
    }

    fn ring(&self, cause: Cause) {
        self.channel.ask(&Request::Ring { mapped: self.id, is_data: cause == Cause::Data }).unwrap()
    }

    fn is_hung_up(&self) -> bool {
        self.channel.ask(&Request::IsHungUp { mapped: self.id }).unwrap()
    }
}

impl Drop for MappedThere {
    fn drop(&mut self) {
        self.channel.ask::<()>(&Request::Detach { mapped: self.id }).unwrap();
    }
}

/// The other process' end: does as it is told, until the suite has let go.
pub fn serve(device: Arc<dyn Device>) {
    let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned().unwrap());
    let mut served = Served { device, buffers: Vec::new(), mapped: Vec::new() };
    for line in BufReader::new(&socket).lines() {
        let Ok(line) = line else { return };
        let answer = served.carry_out(serde_json::from_str(&line).unwrap());
        if put(&socket, &answer).is_err() {
            return;
        }
    }
}

struct Served {
    device: Arc<dyn Device>,
    buffers: Vec<Option<Box<dyn Buffer>>>,
    mapped: Vec<Option<Box<dyn Mapped>>>,
}

impl Served {
    fn carry_out(&mut self, request: Request) -> Result<Value, Refusal> {
        let device: &dyn Party = &self.device;
        Ok(match request {
            Request::Describe => json!((device.fabric_id().0, device.gid().to_bytes(), device.max_dmbs())),
            Request::Query { gid } => json!(device.query(Gid::from_bytes(gid))?),
            Request::Register { user, len } => {
                let buffer = device.register(Gid::from_bytes(user), len)?;
                let token = buffer.token().0;
                self.buffers.push(Some(buffer));
                json!((self.buffers.len() - 1, token))
            }
            Request::Read { buffer, offset, len } => {
                json!(self.buffers[buffer].as_ref().unwrap().read(offset, len))
            }
            Request::GiveBack { buffer } => json!(drop(self.buffers[buffer].take())),
            Request::Move { token, signal, offset, data } => {
                json!(device.move_data(DmbToken(token), signal, offset, &data)?)
            }
            Request::Attach { owner, token, len } => {
                let mapped = device.attach(Gid::from_bytes(owner), DmbToken(token), len)?;
                let (owner, token, len) = mapped.identity();
                self.mapped.push(Some(mapped));
                json!((self.mapped.len() - 1, owner.to_bytes(), token.0, len))
            }
            Request::Write { mapped, offset, data } => json!(self.mapped(mapped).write(offset, &data)),
            Request::Ring { mapped, is_data } => {
                json!(self.mapped(mapped).ring(if is_data { Cause::Data } else { Cause::Space }))
            }
            Request::IsHungUp { mapped } => json!(self.mapped(mapped).is_hung_up()),
            Request::Detach { mapped } => json!(drop(self.mapped[mapped].take())),
        })
    }

    fn mapped(&self, id: usize) -> &dyn Mapped {
        self.mapped[id].as_deref().unwrap()
    }
}
