//! Names in a form in which both sides can be compared: in full, with tokio's types under our names, and without the
//! names of lifetimes.

use std::collections::HashMap;

use syn::{
    GenericArgument, Ident, Item, Lifetime, Path, PathArguments, PathSegment, Token, Type, TypeReference,
    UseTree, parse_quote,
    visit_mut::{self, VisitMut},
};

/// The types that stand in for one another, tokio's first.
pub(crate) const PAIRS: &[(&str, &str)] = &[
    ("TcpStream", "SmcStream"),
    ("TcpListener", "SmcListener"),
    ("TcpSocket", "SmcSocket"),
    ("ReadHalf", "ReadHalf"),
    ("WriteHalf", "WriteHalf"),
    ("OwnedReadHalf", "OwnedReadHalf"),
    ("OwnedWriteHalf", "OwnedWriteHalf"),
    ("ReuniteError", "ReuniteError"),
];

/// Whose source it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Tokio,
    Ours,
}

impl Side {
    /// Our name of the type that this path means, if it is one of those compared.
    fn own_type(self, path: &[String]) -> Option<&'static str> {
        let (last, module) = path.split_last()?;
        let is_own = match (self, module.first().map(String::as_str)) {
            (_, None | Some("super" | "self")) => true,
            (Self::Tokio, Some("crate")) => module.get(1).is_some_and(|name| name == "net"),
            (Self::Ours, Some("crate")) => true,
            _ => false,
        };
        let (_, ours) = PAIRS.iter().find(|(theirs, ours)| match self {
            Self::Tokio => theirs == last,
            Self::Ours => ours == last,
        })?;
        is_own.then_some(ours)
    }
}

/// The names that a file can use.
#[derive(Clone)]
pub(crate) struct Names {
    side: Side,
    imports: HashMap<String, Vec<String>>,
    /// What `Self` means.
    this: Option<String>,
}

impl Names {
    /// Collects the imports of these items.
    pub(crate) fn of(side: Side, items: &[Item]) -> Self {
        let mut names = Self { side, imports: HashMap::new(), this: None };
        for item in items {
            if let Item::Use(item) = item {
                names.import(&mut Vec::new(), &item.tree);
            }
        }
        names
    }

    /// The same names, where `Self` is `this`.
    pub(crate) fn with_self(&self, this: &str) -> Self {
        Self { this: Some(this.into()), ..self.clone() }
    }

    fn import(&mut self, prefix: &mut Vec<String>, tree: &UseTree) {
        let mut add = |name: &Ident, path: Vec<String>| self.imports.insert(name.to_string(), path);
        match tree {
            UseTree::Path(path) => {
                prefix.push(path.ident.to_string());
                self.import(prefix, &path.tree);
                prefix.pop();
            }
            UseTree::Name(name) if name.ident == "self" => {
                let module = prefix.last().expect("a module").clone();
                self.imports.insert(module, prefix.clone());
            }
            UseTree::Name(name) => {
                add(&name.ident, [prefix.as_slice(), &[name.ident.to_string()]].concat());
            }
            UseTree::Rename(name) => {
                add(&name.rename, [prefix.as_slice(), &[name.ident.to_string()]].concat());
            }
            UseTree::Glob(_) if prefix.join("::") == "std::os::unix::prelude" => {
                for name in ["AsFd", "AsRawFd", "BorrowedFd", "FromRawFd", "IntoRawFd", "OwnedFd", "RawFd"] {
                    self.imports.insert(name.into(), ["std", "os", "fd", name].map(Into::into).into());
                }
            }
            // What comes from elsewhere shows as a difference.
            UseTree::Glob(_) => {}
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.import(prefix, tree)),
        }
    }

    /// Our name of the type, if it is one of those compared.
    pub(crate) fn compared(&self, ty: &Type) -> Option<String> {
        let Type::Path(path) = ty else { return None };
        let path = self
            .full(&path.path.segments.iter().map(|segment| segment.ident.to_string()).collect::<Vec<_>>());
        Some(self.side.own_type(&path)?.to_owned())
    }

    /// The whole path that a path stands for.
    fn full(&self, path: &[String]) -> Vec<String> {
        match self.imports.get(&path[0]) {
            Some(import) => [import, &path[1..]].concat(),
            None => path.to_vec(),
        }
    }

    /// The one name of what a path means.
    fn canonical(&self, path: &[String]) -> Vec<String> {
        if let (Some(this), "Self") = (&self.this, path[0].as_str()) {
            return [std::slice::from_ref(this), &path[1..]].concat();
        }
        let full = self.full(path);
        if let Some(own) = self.side.own_type(&full) {
            return vec![own.to_owned()];
        }
        let mut full = full;
        match full[0].as_str() {
            "crate" if self.side == Side::Tokio => full[0] = "tokio".into(),
            "core" | "alloc" => full[0] = "std".into(),
            _ => {}
        }
        if full.starts_with(&["std", "os", "unix", "io"].map(String::from)) {
            full.splice(2..4, ["fd".to_owned()]);
        }
        full
    }
}

impl VisitMut for Names {
    fn visit_path_mut(&mut self, path: &mut Path) {
        let arguments = path.segments.last().map(|last| last.arguments.clone()).unwrap_or_default();
        let names: Vec<_> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        let segment = |name: &String| PathSegment::from(Ident::new(name, proc_macro2::Span::call_site()));
        path.segments = self.canonical(&names).iter().map(segment).collect();
        path.leading_colon = None;
        if let Some(last) = path.segments.last_mut() {
            last.arguments = without_lifetimes(arguments);
        }
        visit_mut::visit_path_mut(self, path);
    }

    fn visit_type_mut(&mut self, ty: &mut Type) {
        while let Type::Paren(paren) = ty {
            *ty = (*paren.elem).clone();
        }
        visit_mut::visit_type_mut(self, ty);
    }

    fn visit_type_reference_mut(&mut self, reference: &mut TypeReference) {
        reference.lifetime = reference.lifetime.take().filter(is_static);
        visit_mut::visit_type_reference_mut(self, reference);
    }
}

fn is_static(lifetime: &Lifetime) -> bool {
    lifetime.ident == "static"
}

fn without_lifetimes(arguments: PathArguments) -> PathArguments {
    let PathArguments::AngleBracketed(mut list) = arguments else { return arguments };
    let is_kept = |argument: &GenericArgument| match argument {
        GenericArgument::Lifetime(lifetime) => is_static(lifetime),
        _ => true,
    };
    list.args = list.args.into_iter().filter(is_kept).collect();
    // In types the colons before the bracket mean nothing.
    list.colon2_token = None::<Token![::]>;
    if list.args.is_empty() { PathArguments::None } else { PathArguments::AngleBracketed(list) }
}

/// The path of a trait that is derived.
pub(crate) fn derived(name: &Path) -> Path {
    match name.get_ident().map(ToString::to_string).as_deref() {
        Some("Debug") => parse_quote!(std::fmt::Debug),
        Some("Hash") => parse_quote!(std::hash::Hash),
        _ => name.clone(),
    }
}
