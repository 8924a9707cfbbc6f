//! Text, UUIDs, and arrays of labels.

/// Without the spaces at the end: they are no part of a CHAR.
pub(super) fn without_padding(text: &[u8]) -> &[u8] {
    &text[..text.iter().rposition(|&c| c != b' ').map_or(0, |last| last + 1)]
}

/// A UUID as 32 lower-case digits; other text as it is.
pub(super) fn push_uuid_text(text: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    for &c in text {
        match c {
            b'-' => {}
            c if c.is_ascii_hexdigit() && out.len() < start + 32 => out.push(c.to_ascii_lowercase()),
            _ => {
                out.truncate(start);
                break;
            }
        }
    }
    if out.len() != start + 32 {
        out.truncate(start);
        out.extend_from_slice(text);
    }
}

/// 32 digits with their hyphens; text that is no UUID as it is.
pub(super) fn print_uuid_digits(canonical: &[u8], out: &mut Vec<u8>) -> bool {
    if canonical.len() != 32 || !canonical.iter().all(u8::is_ascii_hexdigit) {
        out.extend_from_slice(canonical);
        return true;
    }
    for (i, &digit) in canonical.iter().enumerate() {
        if matches!(i, 8 | 12 | 16 | 20) {
            out.push(b'-');
        }
        out.push(digit);
    }
    true
}

/// 16 bytes as a UUID; false: not 16 bytes.
pub(super) fn print_uuid_bytes(canonical: &[u8], out: &mut Vec<u8>) -> bool {
    if canonical.len() != 16 {
        return false;
    }
    let mut digits = Vec::with_capacity(32);
    super::bytes::push_lower(canonical, &mut digits);
    print_uuid_digits(&digits, out)
}

/// An array of text (`{a,"b c"}`) as its elements joined by `,`. False: NULL elements, several dimensions, or an element with a comma,
/// which no label of a SET has.
pub(super) fn push_array(text: &[u8], out: &mut Vec<u8>) -> bool {
    let Some(mut rest) = text.strip_prefix(b"{") else { return false };
    if rest == b"}" {
        return true;
    }
    loop {
        let start = out.len();
        if let Some(quoted) = rest.strip_prefix(b"\"") {
            let mut at = 0;
            loop {
                match quoted.get(at) {
                    Some(b'"') => break,
                    Some(b'\\') => {
                        let Some(&c) = quoted.get(at + 1) else { return false };
                        out.push(c);
                        at += 2;
                    }
                    Some(&c) => {
                        out.push(c);
                        at += 1;
                    }
                    None => return false,
                }
            }
            rest = &quoted[at + 1..];
        } else {
            let end = rest.iter().position(|c| matches!(c, b',' | b'}' | b'{' | b'"' | b'\\')).unwrap_or(rest.len());
            let word = &rest[..end];
            if word.is_empty() || word.eq_ignore_ascii_case(b"NULL") {
                return false;
            }
            out.extend_from_slice(word);
            rest = &rest[end..];
        }
        if out[start..].contains(&b',') {
            return false;
        }
        match rest {
            b"}" => return true,
            [b',', more @ ..] => {
                out.push(b',');
                rest = more;
            }
            _ => return false,
        }
    }
}

/// Labels joined by `,` as an array.
pub(super) fn print_array(canonical: &[u8], out: &mut Vec<u8>) {
    out.push(b'{');
    for (i, label) in canonical.split(|&c| c == b',').enumerate().filter(|_| !canonical.is_empty()) {
        if i > 0 {
            out.push(b',');
        }
        out.push(b'"');
        for &c in label {
            if matches!(c, b'"' | b'\\') {
                out.push(b'\\');
            }
            out.push(c);
        }
        out.push(b'"');
    }
    out.push(b'}');
}
