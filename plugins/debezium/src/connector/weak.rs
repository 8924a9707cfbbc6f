//! Settings of a connector that make what is said of its tables weaker than it could be. Pure.

use crate::connect::Config;

/// One sentence for each: the setting, and what follows from it. Settings that are not given count with Debezium's own default.
pub fn weaknesses(config: &Config) -> Vec<String> {
    let value = |key: &str| config.get(key).map(|value| value.trim()).unwrap_or_default();
    let mut found = Vec::new();
    let mut say = |holds: bool, key: &str, follows: &str| {
        if holds {
            let given = config.get(key).map_or_else(|| format!("`{key}` is not set"), |value| format!("`{key}` is `{value}`"));
            found.push(format!("{given}: {follows}"));
        }
    };
    let skipped = value("skipped.operations");
    let skips = |letter: &str| skipped.split(',').any(|operation| operation.trim() == letter);
    say(
        skipped.is_empty() || skips("t"),
        "skipped.operations",
        "truncations are not sent, so rows that a TRUNCATE removed stay in the copy, and only a whole comparison finds them. `none` sends them",
    );
    say(["c", "u", "d"].into_iter().any(skips), "skipped.operations", "inserts, updates or deletes are not sent: the copy cannot be true, and counts are too low. `none` sends them");
    say(
        value("decimal.handling.mode") == "double",
        "decimal.handling.mode",
        "a DECIMAL of more than 15 digits comes rounded, and is `changed` in the copy. `string` or `precise` keep every digit",
    );
    say(
        matches!(value("bigint.unsigned.handling.mode"), "" | "long"),
        "bigint.unsigned.handling.mode",
        "a BIGINT UNSIGNED above 9223372036854775807 comes as a negative number. `precise` keeps it",
    );
    say(
        value("time.precision.mode") == "connect",
        "time.precision.mode",
        "times lose their microseconds, and are `changed` in a copy that should have them. `adaptive_time_microseconds` keeps them",
    );
    say(
        !matches!(value("binary.handling.mode"), "" | "bytes"),
        "binary.handling.mode",
        "a sink stores the text instead of the bytes, unless it decodes it: binary columns of such a copy are `changed`. `bytes` sends them as they are",
    );
    say(
        value("tombstones.on.delete") == "false",
        "tombstones.on.delete",
        "a compacted topic never forgets a deleted row, so whoever reads it anew brings the row back. `true` sends tombstones",
    );
    say(
        value("event.converting.failure.handling.mode") != "fail",
        "event.converting.failure.handling.mode",
        "a value that cannot be converted becomes NULL without a failure. `fail` stops instead",
    );
    say(
        matches!(value("event.processing.failure.handling.mode"), "warn" | "skip" | "ignore"),
        "event.processing.failure.handling.mode",
        "changes that cannot be read are left out without a failure. `fail` stops instead",
    );
    say(
        value("snapshot.mode") == "when_needed",
        "snapshot.mode",
        "when the binlog was purged, all rows are read again and nothing is said: deletes in the gap stay in the copy for ever. `initial` fails instead",
    );
    for key in config.keys().filter(|key| key.starts_with("transforms.") && key.ends_with(".type")) {
        say(
            value(key).ends_with("ExtractNewRecordState"),
            key,
            "records come flattened, without `before`, `op` and `source`: they cannot be counted and are kept aside. Put the transform into the sink instead",
        );
    }
    for key in config.keys().filter(|key| key.starts_with("column.mask.") || key.starts_with("column.truncate.")) {
        say(true, key, "columns come with other values than the source has: they are `changed` in the copy");
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(changed: &[(&str, &str)], words: &[&str]) {
        let strong = [("skipped.operations", "none"), ("bigint.unsigned.handling.mode", "precise"), ("event.converting.failure.handling.mode", "fail")];
        let mut config: Config = strong.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        for (key, value) in changed {
            match *value {
                "" => config.remove(*key),
                value => config.insert((*key).to_owned(), value.to_owned()),
            };
        }
        let found = weaknesses(&config);
        assert_eq!(found.len(), words.len(), "{found:?}");
        for (sentence, word) in found.iter().zip(words) {
            assert!(sentence.contains(word), "{sentence}");
        }
    }

    #[test]
    fn each_weak_setting_says_what_follows() {
        check(&[], &[]);
        for (key, value, word) in [
            ("skipped.operations", "", "`skipped.operations` is not set: truncations"),
            ("skipped.operations", "t", "truncations are not sent"),
            ("skipped.operations", "d, u", "counts are too low"),
            ("decimal.handling.mode", "double", "15 digits"),
            ("bigint.unsigned.handling.mode", "", "negative"),
            ("bigint.unsigned.handling.mode", "long", "negative"),
            ("time.precision.mode", "connect", "microseconds"),
            ("binary.handling.mode", "hex", "bytes"),
            ("tombstones.on.delete", "false", "compacted"),
            ("event.converting.failure.handling.mode", "warn", "NULL"),
            ("event.processing.failure.handling.mode", "skip", "left out"),
            ("snapshot.mode", "when_needed", "for ever"),
            ("transforms.flat.type", "io.debezium.transforms.ExtractNewRecordState", "`transforms.flat.type`"),
            ("column.mask.with.5.chars", "shop.a.b", "other values"),
        ] {
            check(&[(key, value)], &[word]);
        }
        check(&[("skipped.operations", "t,d")], &["truncations", "counts are too low"]);
        check(&[("transforms.route.type", "io.debezium.transforms.ByLogicalTableRouter"), ("binary.handling.mode", "bytes")], &[]);
    }
}
