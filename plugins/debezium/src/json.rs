//! JSON as Connect writes it, without a blank between its parts, walked in one pass. Pure.
//!
//! What is taken here is valid JSON (RFC 8259), if it has no control characters ([`is_clean`]), and means what serde_json would say it means. Whatever is
//! written in another way, or is wrong, is `None`: then serde_json reads it, and says what is wrong.

/// Deeper values are left to serde_json, which has a limit of its own.
const DEPTH: u32 = 64;

/// Whether a text has no control characters, which strings may not have. Once for a record is enough.
pub(crate) fn is_clean(text: &str) -> bool {
    // Without a way out in the middle, so that the compiler looks at many bytes at once.
    !text.as_bytes().iter().fold(false, |any, byte| any | (*byte < 0x20))
}

/// Walks through the members of the object that `text` is: each name, which has no escapes, and the value as it is written. `None` where `each` says
/// so, too. Of control characters within strings it takes no notice: `text` is clean, or is valid JSON.
pub(crate) fn members<'a>(text: &'a str, mut each: impl FnMut(&'a str, &'a str) -> Option<()>) -> Option<()> {
    let bytes = text.as_bytes();
    if bytes.first() != Some(&b'{') {
        return None;
    }
    if text == "{}" {
        return Some(());
    }
    let mut at = 1;
    loop {
        let name_ends = end_of_string(bytes, at)?;
        let name = text.get(at + 1..name_ends - 1)?;
        // Names are short: a loop is quicker than a search.
        if name.bytes().any(|byte| byte == b'\\') || bytes.get(name_ends) != Some(&b':') {
            return None;
        }
        let value_ends = end_of_value(bytes, name_ends + 1, 0)?;
        each(name, text.get(name_ends + 1..value_ends)?)?;
        match bytes.get(value_ends)? {
            b',' => at = value_ends + 1,
            b'}' => return (value_ends + 1 == bytes.len()).then_some(()),
            _ => return None,
        }
    }
}

/// The content of a string without escapes.
pub(crate) fn plain(value: &str) -> Option<&str> {
    value.strip_prefix('"')?.strip_suffix('"').filter(|inner| !has_escapes(inner))
}

/// Whether the content of a string has escapes.
pub(crate) fn has_escapes(inner: &str) -> bool {
    memchr::memchr(b'\\', inner.as_bytes()).is_some()
}

fn end_of_value(bytes: &[u8], at: usize, depth: u32) -> Option<usize> {
    let is = |literal: &[u8]| bytes.get(at..at + literal.len()).filter(|found| *found == literal).map(|_| at + literal.len());
    match bytes.get(at)? {
        b'"' => end_of_string(bytes, at),
        b'{' | b'[' if depth >= DEPTH => None,
        b'{' => end_of_parts(bytes, at, b'}', |at| {
            let name_ends = end_of_string(bytes, at)?;
            if bytes.get(name_ends) == Some(&b':') { end_of_value(bytes, name_ends + 1, depth + 1) } else { None }
        }),
        b'[' => end_of_parts(bytes, at, b']', |at| end_of_value(bytes, at, depth + 1)),
        b't' => is(b"true"),
        b'f' => is(b"false"),
        b'n' => is(b"null"),
        _ => end_of_number(bytes, at),
    }
}

/// Parts with commas between them, up to `close`.
fn end_of_parts(bytes: &[u8], open: usize, close: u8, part: impl Fn(usize) -> Option<usize>) -> Option<usize> {
    let mut at = open + 1;
    if bytes.get(at) == Some(&close) {
        return Some(at + 1);
    }
    loop {
        at = part(at)?;
        match bytes.get(at)? {
            b',' => at += 1,
            found if *found == close => return Some(at + 1),
            _ => return None,
        }
    }
}

fn end_of_string(bytes: &[u8], at: usize) -> Option<usize> {
    if bytes.get(at) != Some(&b'"') {
        return None;
    }
    let mut at = at + 1;
    loop {
        at += until_special(bytes.get(at..)?);
        match (bytes.get(at)?, bytes.get(at + 1)) {
            (b'"', _) => return Some(at + 1),
            (b'\\', Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't')) => at += 2,
            (b'\\', Some(b'u')) if bytes.get(at + 2..at + 6)?.iter().all(u8::is_ascii_hexdigit) => at += 6,
            _ => return None,
        }
    }
}

/// How many bytes come before the first quote or backslash.
fn until_special(bytes: &[u8]) -> usize {
    // Most names and many values end within sixteen bytes, eight of which are looked at as one number.
    let (words, _) = bytes.as_chunks::<8>();
    for (i, word) in words.iter().take(2).enumerate() {
        let found = special(u64::from_le_bytes(*word));
        if found != 0 {
            return i * 8 + found.trailing_zeros() as usize / 8;
        }
    }
    let passed = words.len().min(2) * 8;
    let rest = bytes.get(passed..).unwrap_or_default();
    passed + memchr::memchr2(b'"', b'\\', rest).unwrap_or(rest.len())
}

/// The top bit of each byte that is a quote or a backslash; above the first of them others may be set.
fn special(word: u64) -> u64 {
    const EACH: u64 = u64::from_le_bytes([1; 8]);
    let equal = |byte: u8| {
        let zero = word ^ (EACH * u64::from(byte));
        zero.wrapping_sub(EACH) & !zero
    };
    (equal(b'"') | equal(b'\\')) & (EACH << 7)
}

fn end_of_number(bytes: &[u8], at: usize) -> Option<usize> {
    let digits = |at: usize| at + bytes.get(at..).unwrap_or_default().iter().take_while(|byte| byte.is_ascii_digit()).count();
    let some_digits = |at: usize| Some(digits(at)).filter(|end| *end > at);
    let at = if bytes.get(at) == Some(&b'-') { at + 1 } else { at };
    let mut at = if bytes.get(at) == Some(&b'0') { at + 1 } else { some_digits(at)? };
    if bytes.get(at) == Some(&b'.') {
        at = some_digits(at + 1)?;
    }
    if matches!(bytes.get(at), Some(b'e' | b'E')) {
        at = if matches!(bytes.get(at + 1), Some(b'+' | b'-')) { at + 2 } else { at + 1 };
        at = some_digits(at)?;
    }
    Some(at)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::value::RawValue;

    use super::*;

    fn fast(text: &str) -> Option<Vec<(&str, &str)>> {
        let mut all = Vec::new();
        is_clean(text).then_some(())?;
        members(text, |name, value| {
            all.push((name, value));
            Some(())
        })?;
        Some(all)
    }

    const SAMPLES: [&str; 14] = [
        r#"{}"#,
        r#"{"a":1,"b":null,"c":true,"d":false}"#,
        r#"{"a":"","b":"0123456789abcdef","c":"0123456789abcde\"","d":"01234567\u00e9\n\\"}"#,
        r#"{"a":-0,"b":0.5,"c":-1.25e+10,"d":1E-5,"e":12345678901234567890123}"#,
        r#"{"a":{"b":[1,[],{},{"c":"}]"}]},"d":[null,true,"x"]}"#,
        r#"{"ключ":"значение","emoji":"😀😀😀😀😀"}"#,
        r#"{"a":{"wkb":"AQE=","srid":null},"b":["\ud83d\ude00"]}"#,
        r#"{"schema":{"type":"struct"},"payload":null}"#,
        r#"{"a":"\ud800"}"#,
        r#"{"a":[[[[[[[[[[1]]]]]]]]]]}"#,
        r#"{"a":0}"#,
        r#"{"a":"tab	inside"}"#,
        r#"{ "a": 1 }"#,
        r#"{"a":1,"a":2}"#,
    ];

    /// Whatever is taken here, serde_json takes with the same names and values.
    fn agrees(text: &str) {
        let Some(found) = fast(text) else { return };
        let map: BTreeMap<String, &RawValue> = serde_json::from_str(text).unwrap_or_else(|cause| panic!("{text:?} is no JSON: {cause}"));
        let mine: BTreeMap<String, &str> = found.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        assert_eq!(mine, map.iter().map(|(name, value)| (name.clone(), value.get())).collect(), "{text:?}");
    }

    #[test]
    fn what_connect_writes_is_taken_and_other_forms_are_left() {
        for (i, sample) in SAMPLES.iter().enumerate() {
            agrees(sample);
            assert_eq!(fast(sample).is_some(), !(11..13).contains(&i), "{sample}");
        }
        let deep = format!(r#"{{"a":{}1{}}}"#, "[".repeat(70), "]".repeat(70));
        assert!(fast(&deep).is_none());
        assert_eq!(fast(r#"{"a\u0062":1}"#), None, "a name with an escape");
    }

    #[test]
    fn nothing_is_taken_that_serde_json_refuses() {
        for sample in SAMPLES {
            for (at, _) in sample.char_indices() {
                agrees(&sample[..at]);
                for put in ["", "\"", "\\", "{", "}", "[", "]", ",", ":", "0", "-", ".", "e", "n", "\u{1}", "\\u12", " "] {
                    let rest = &sample[at..];
                    agrees(&format!("{}{put}{rest}", &sample[..at]));
                    agrees(&format!("{}{put}{}", &sample[..at], rest.get(1..).unwrap_or_default()));
                }
            }
        }
    }

    #[test]
    fn texts_without_escapes_are_themselves() {
        assert_eq!((plain(r#""a b""#), plain(r#""a\n""#), plain("null"), plain("\"")), (Some("a b"), None, None, None));
    }
}
