//! Counters by name, to be shown, compared and kept.

use std::collections::BTreeMap;

use indicatif::HumanCount;
use serde_json::{Map, Value};
use smcd::observe::{Flow, SIZE_CLASSES, Share, Totals};

use crate::table::table;

/// Counters by name. The parts of a name are separated by dots.
pub(crate) type Counters = BTreeMap<String, u64>;

/// The name of each class of sizes.
pub(crate) fn size_names() -> impl Iterator<Item = String> {
    let bounds = SIZE_CLASSES.into_iter().map(|bound| match bound {
        bound if bound >= 1 << 20 => format!("<={}M", bound >> 20),
        bound if bound >= 1 << 10 => format!("<={}K", bound >> 10),
        bound => format!("<={bound}"),
    });
    bounds.chain(std::iter::once(">1M".to_owned()))
}

/// All counters of these totals, by name.
pub(crate) fn flatten(totals: &Totals) -> Counters {
    let mut all = Counters::new();
    let mut set = |name: String, value: u64| _ = all.insert(name, value);
    set("connections.seen".into(), totals.seen);
    set("connections.promoted".into(), totals.promoted);
    set("connections.closed".into(), totals.closed);
    set("connections.unrecorded".into(), totals.unrecorded);
    set("handshake_errors".into(), totals.handshake_errors);
    for fallback in &totals.fallbacks {
        set(format!("fallbacks.{}", fallback.reason), fallback.count);
    }
    flows("", &totals.received, &totals.sent, &mut set);
    for (name, Share { connections, received, sent, .. }) in
        [("eligible.", &totals.eligible), ("well_suited.", &totals.well_suited)]
    {
        set(format!("{name}connections"), *connections);
        flows(name, received, sent, &mut set);
    }
    all
}

fn flows(prefix: &str, received: &Flow, sent: &Flow, set: &mut impl FnMut(String, u64)) {
    for (direction, flow) in [("received", received), ("sent", sent)] {
        for (way, by) in [("ring", flow.ring), ("tcp", flow.tcp)] {
            set(format!("{prefix}{direction}.{way}.bytes"), by.bytes);
            set(format!("{prefix}{direction}.{way}.calls"), by.calls);
        }
        set(format!("{prefix}{direction}.wakeups"), flow.wakeups);
        for (name, calls) in size_names().zip(flow.sizes) {
            set(format!("{prefix}{direction}.sizes.{name}"), calls);
        }
    }
}

/// What was counted since then. A counter that was not there was zero.
pub(crate) fn since(now: &Counters, then: &Counters) -> Counters {
    let before = |name: &str| then.get(name).copied().unwrap_or(0);
    now.iter().map(|(name, value)| (name.clone(), value.saturating_sub(before(name)))).collect()
}

/// Adds the counters of another process.
pub(crate) fn add(sum: &mut Counters, other: &Counters) {
    for (name, value) in other {
        let to = sum.entry(name.clone()).or_default();
        *to = to.saturating_add(*value);
    }
}

/// As an object in which the parts of the names are levels.
pub(crate) fn json(counters: &Counters) -> Value {
    let mut root = Map::new();
    for (name, value) in counters {
        insert(&mut root, name, *value);
    }
    Value::Object(root)
}

fn insert(level: &mut Map<String, Value>, name: &str, value: u64) {
    let Some((first, rest)) = name.split_once('.') else {
        level.insert(name.to_owned(), value.into());
        return;
    };
    let below = level.entry(first).or_insert_with(|| Value::Object(Map::new()));
    if let Value::Object(below) = below {
        insert(below, rest, value);
    }
}

/// As tables for people.
pub(crate) fn text(counters: &Counters) -> String {
    let get = |name: &str| counters.get(name).copied().unwrap_or(0);
    let human = |name: &str| HumanCount(get(name)).to_string();
    let mut parts = vec![connections(counters)];
    let mut flows = vec![["Traffic", " Bytes", " Calls", " Wake-ups"].map(String::from).to_vec()];
    for direction in ["received", "sent"] {
        for (way, words) in [("ring", "by ring"), ("tcp", "by TCP")] {
            let path = format!("{direction}.{way}");
            let wakeups = if way == "ring" { human(&format!("{direction}.wakeups")) } else { "-".into() };
            flows.push(vec![
                format!("{direction} {words}"),
                human(&format!("{path}.bytes")),
                human(&format!("{path}.calls")),
                wakeups,
            ]);
        }
    }
    parts.push(table(&flows));
    let mut sizes = vec![["Size", " Received", " Sent"].map(String::from).to_vec()];
    for name in size_names() {
        let (received, sent) = (format!("received.sizes.{name}"), format!("sent.sizes.{name}"));
        if get(&received) > 0 || get(&sent) > 0 {
            sizes.push(vec![name, human(&received), human(&sent)]);
        }
    }
    if sizes.len() > 1 {
        parts.push(table(&sizes));
    }
    parts.join("\n")
}

/// What has become of the connections. What is zero is left out, but for the most important ones.
fn connections(counters: &Counters) -> String {
    let get = |name: &str| counters.get(name).copied().unwrap_or(0);
    let mut rows = vec![["Connections", " Number"].map(String::from).to_vec()];
    let mut add = |name: &str, count: u64, always: bool| {
        if count > 0 || always {
            rows.push(vec![name.to_owned(), HumanCount(count).to_string()]);
        }
    };
    add("seen", get("connections.seen"), true);
    add("promoted", get("connections.promoted"), true);
    add("closed", get("connections.closed"), true);
    add("eligible", get("eligible.connections"), false);
    add("well suited", get("well_suited.connections"), false);
    add("without a record", get("connections.unrecorded"), false);
    add("handshake errors", get("handshake_errors"), false);
    for (name, count) in counters {
        if let Some(reason) = name.strip_prefix("fallbacks.") {
            add(&format!("TCP: {reason}"), *count, false);
        }
    }
    table(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_class_has_a_name() {
        let names: Vec<_> = size_names().collect();
        assert_eq!(names.len(), SIZE_CLASSES.len() + 1);
        assert_eq!((names[0].as_str(), names[2].as_str(), names[11].as_str()), ("<=64", "<=1K", "<=1M"));
    }

    #[test]
    fn levels_of_json() {
        let counters = Counters::from([("a.b.c".into(), 1), ("a.d".into(), 2), ("e".into(), 3)]);
        assert_eq!(json(&counters).to_string(), r#"{"a":{"b":{"c":1},"d":2},"e":3}"#);
    }

    #[test]
    fn only_what_happened_is_shown() {
        let text = text(&Counters::from([
            ("connections.seen".to_owned(), 3),
            ("fallbacks.peer-left 0x09990000".to_owned(), 1),
            ("sent.sizes.<=4K".to_owned(), 5),
        ]));
        assert!(text.contains("promoted") && text.contains("TCP: peer-left 0x09990000       1"), "{text}");
        assert!(text.contains("<=4K         0     5\n") && !text.contains("<=64"), "{text}");
    }

    #[test]
    fn what_was_counted_before_does_not_count() {
        let counters = |a, b| Counters::from([("a".to_owned(), a), ("b".to_owned(), b)]);
        assert_eq!(since(&counters(5, 1), &counters(3, 2)), counters(2, 0));
        let mut sum = counters(1, u64::MAX);
        add(&mut sum, &counters(1, 1));
        assert_eq!(sum, counters(2, u64::MAX));
    }
}
