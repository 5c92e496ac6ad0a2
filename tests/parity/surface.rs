//! What the types of a source offer.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use proc_macro2::TokenStream;
use quote::ToTokens;
use syn::{
    Fields, FnArg, ImplItem, Item, ItemImpl, ItemStruct, Macro, Path, ReceiverKind, Signature, Token,
    Visibility, braced, parenthesized,
    parse::{Parse, ParseStream, Parser},
    parse_quote,
    punctuated::Punctuated,
    visit_mut::VisitMut,
};

use crate::{
    cfg::is_active,
    names::{Names, Side, derived},
};

/// Public methods, implemented traits and public fields, each with what is to be equal.
pub(crate) struct Surface {
    types: BTreeSet<String>,
    items: BTreeMap<String, String>,
}

impl Surface {
    /// Reads these files.
    ///
    /// # Panics
    /// If there is something in tokio's that could hide items.
    pub(crate) fn of(side: Side, files: &[syn::File]) -> Self {
        let mut reader = Reader {
            side,
            macros: HashMap::new(),
            surface: Self { types: BTreeSet::new(), items: BTreeMap::new() },
        };
        for file in files {
            reader.learn_macros(&file.items);
        }
        for file in files {
            let items = reader.flatten(file.items.clone());
            let names = Names::of(side, &items);
            items.into_iter().for_each(|item| reader.read(&names, item));
        }
        reader.surface
    }

    /// The types that were found.
    pub(crate) fn types(&self) -> BTreeSet<String> {
        self.types.clone()
    }

    /// What they offer.
    pub(crate) fn items(&self) -> &BTreeMap<String, String> {
        &self.items
    }
}

struct Reader {
    side: Side,
    /// Macros without arguments, by name.
    macros: HashMap<String, TokenStream>,
    surface: Surface,
}

impl Reader {
    fn learn_macros(&mut self, items: &[Item]) {
        for item in items {
            if let Item::Macro(item) = item
                && let Some(name) = &item.ident
                && let Ok(body) = constant_macro.parse2(item.mac.tokens.clone())
            {
                self.macros.insert(name.to_string(), body);
            }
        }
    }

    /// What a macro call stands for.
    fn expand<T: Parse>(&self, call: &Macro) -> Vec<T> {
        let name = call.path.segments.last().expect("a name").ident.to_string();
        let tokens = match (self.macros.get(&name), name.as_str()) {
            (Some(body), _) => body.clone(),
            (None, "cfg_net" | "cfg_io_util" | "cfg_not_wasi" | "cfg_not_wasip1" | "cfg_unix_or_wasi") => {
                call.tokens.clone()
            }
            (None, "cfg_windows" | "cfg_unstable") => TokenStream::new(),
            _ if self.side == Side::Ours => TokenStream::new(),
            _ => panic!("unknown macro {name}"),
        };
        many.parse2(tokens).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// The items that exist, those in modules and macros among them.
    fn flatten(&self, items: Vec<Item>) -> Vec<Item> {
        let mut flat = Vec::new();
        for item in items {
            match item {
                Item::Mod(module) if is_active(&module.attrs) => {
                    flat.extend(self.flatten(module.content.map(|(_, items)| items).unwrap_or_default()));
                }
                Item::Macro(call) if call.ident.is_none() && is_active(&call.attrs) => {
                    flat.extend(self.flatten(self.expand(&call.mac)));
                }
                Item::Use(item) if is_active(&item.attrs) => flat.push(Item::Use(item)),
                Item::Impl(item) if is_active(&item.attrs) => flat.push(Item::Impl(item)),
                Item::Struct(item) if is_active(&item.attrs) => flat.push(Item::Struct(item)),
                _ => {}
            }
        }
        flat
    }

    fn read(&mut self, names: &Names, item: Item) {
        match item {
            Item::Impl(item) => self.read_impl(names, item),
            Item::Struct(item) => self.read_struct(names, item),
            _ => {}
        }
    }

    fn read_struct(&mut self, names: &Names, item: ItemStruct) {
        let ident = &item.ident;
        let Some(name) = names.compared(&parse_quote!(#ident)) else { return };
        if !matches!(item.vis, Visibility::Public(_)) {
            return;
        }
        self.surface.types.insert(name.clone());
        for attribute in item.attrs.iter().filter(|attribute| attribute.path().is_ident("derive")) {
            let traits = attribute.parse_args_with(Punctuated::<Path, Token![,]>::parse_terminated);
            for path in traits.expect("traits") {
                self.add_trait(names, &name, derived(&path), String::new());
            }
        }
        if let Fields::Unnamed(_) | Fields::Named(_) = item.fields {
            for (i, mut field) in item.fields.into_iter().enumerate() {
                if let Visibility::Public(_) = field.vis {
                    let label = field.ident.as_ref().map_or(i.to_string(), ToString::to_string);
                    names.with_self(&name).visit_type_mut(&mut field.ty);
                    self.surface.items.insert(format!("{name}.{label}"), text(&field.ty));
                }
            }
        }
    }

    fn read_impl(&mut self, names: &Names, item: ItemImpl) {
        let Some(name) = names.compared(&item.self_ty) else { return };
        let mut rewritten = Vec::new();
        for item in item.items {
            match item {
                ImplItem::Macro(call) if is_active(&call.attrs) => {
                    rewritten.extend(self.expand::<ImplItem>(&call.mac));
                }
                other => rewritten.push(other),
            }
        }
        if let Some((path, _)) = item.trait_ {
            let associated = rewritten.into_iter().filter_map(|item| match item {
                ImplItem::Type(mut item) => {
                    names.with_self(&name).visit_type_mut(&mut item.ty);
                    Some(format!("{} = {}", item.ident, text(&item.ty)))
                }
                _ => None,
            });
            let associated = associated.collect::<Vec<_>>().join(", ");
            self.add_trait(names, &name, path, associated);
            return;
        }
        for item in rewritten {
            if let ImplItem::Fn(method) = item
                && let Visibility::Public(_) = method.vis
                && is_active(&method.attrs)
            {
                let label = format!("{name}::{}", method.sig.ident);
                let signature = signature(names.with_self(&name), method.sig);
                self.surface.items.insert(label, signature);
            }
        }
    }

    fn add_trait(&mut self, names: &Names, name: &str, mut path: Path, associated: String) {
        names.with_self(name).visit_path_mut(&mut path);
        // What happens on dropping is nothing that a caller could name.
        if !path.is_ident("Drop") {
            self.surface.items.insert(format!("{name}: impl {}", text(&path)), associated);
        }
    }
}

/// A signature without what callers do not see: names of arguments and of lifetimes, and whether `self` is `mut`.
fn signature(mut names: Names, mut signature: Signature) -> String {
    names.visit_signature_mut(&mut signature);
    signature.generics.params = signature
        .generics
        .params
        .into_iter()
        .filter(|param| !matches!(param, syn::GenericParam::Lifetime(_)))
        .collect();
    // A last comma is a matter of layout.
    signature.inputs.pop_punct();
    for argument in &mut signature.inputs {
        match argument {
            FnArg::Receiver(receiver) => match &mut receiver.kind {
                ReceiverKind::Value => receiver.mutability = None,
                ReceiverKind::Reference(_, lifetime, _) => *lifetime = None,
                _ => {}
            },
            FnArg::Typed(argument) => *argument.pat = parse_quote!(_),
        }
    }
    if signature.generics.params.is_empty() {
        signature.generics =
            syn::Generics { where_clause: signature.generics.where_clause, ..Default::default() };
    }
    text(&signature)
}

/// Tokens in one line, paths without blanks.
fn text(tokens: &impl ToTokens) -> String {
    tokens.to_token_stream().to_string().replace(" :: ", "::")
}

/// The body of a macro that takes no arguments.
fn constant_macro(input: ParseStream<'_>) -> syn::Result<TokenStream> {
    let (arguments, body);
    parenthesized!(arguments in input);
    if !arguments.is_empty() {
        return Err(arguments.error("arguments"));
    }
    input.parse::<Token![=>]>()?;
    braced!(body in input);
    input.parse::<Option<Token![;]>>()?;
    body.parse()
}

fn many<T: Parse>(input: ParseStream<'_>) -> syn::Result<Vec<T>> {
    let mut all = Vec::new();
    while !input.is_empty() {
        all.push(input.parse()?);
    }
    Ok(all)
}
