//! Which items exist on Linux with all features.

use syn::{Attribute, Expr, ExprLit, Lit, Meta, Token, punctuated::Punctuated};

/// Whether an item with these attributes exists.
///
/// # Panics
/// If a condition is not known: it must not hide anything.
pub(crate) fn is_active(attributes: &[Attribute]) -> bool {
    attributes
        .iter()
        .filter(|attribute| attribute.path().is_ident("cfg"))
        .all(|attribute| holds(&attribute.parse_args().expect("a condition")))
}

fn holds(condition: &Meta) -> bool {
    let name = condition.path().get_ident().map(ToString::to_string).unwrap_or_default();
    match condition {
        Meta::Path(_) => match name.as_str() {
            "unix" => true,
            "windows" | "tokio_unstable" | "test" | "loom" | "docsrs" | "doc" => false,
            _ => panic!("unknown condition {name}"),
        },
        Meta::NameValue(pair) => {
            let Expr::Lit(ExprLit { lit: Lit::Str(value), .. }) = &pair.value else {
                panic!("{name} has no string")
            };
            match name.as_str() {
                "target_os" => value.value() == "linux",
                "target_family" => value.value() == "unix",
                "feature" => true,
                _ => panic!("unknown condition {name}"),
            }
        }
        Meta::List(list) => {
            let parts = list.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated);
            let parts = parts.expect("conditions");
            match name.as_str() {
                "all" => parts.iter().all(holds),
                "any" => parts.iter().any(holds),
                "not" => !holds(&parts[0]),
                _ => panic!("unknown condition {name}"),
            }
        }
    }
}
