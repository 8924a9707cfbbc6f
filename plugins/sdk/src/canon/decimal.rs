//! Decimals of any length as text.

use std::cmp::Ordering;

/// Appends a decimal in canonical form: `-?(0|[1-9][0-9]*)(\.[0-9]*[1-9])?`, never `-0`. False: it is not a plain decimal.
pub(super) fn push(text: &[u8], out: &mut Vec<u8>) -> bool {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    let point = digits.iter().position(|&c| c == b'.').unwrap_or(digits.len());
    let (whole, fraction) = (&digits[..point], digits.get(point + 1..).unwrap_or_default());
    if whole.is_empty() && fraction.is_empty() || !whole.iter().chain(fraction).all(u8::is_ascii_digit) {
        return false;
    }
    let zeros = whole.iter().take_while(|&&c| c == b'0').count();
    let whole = &whole[zeros..];
    let fraction = &fraction[..fraction.iter().rposition(|&c| c != b'0').map_or(0, |last| last + 1)];
    if negative && !(whole.is_empty() && fraction.is_empty()) {
        out.push(b'-');
    }
    if whole.is_empty() {
        out.push(b'0');
    }
    out.extend_from_slice(whole);
    if !fraction.is_empty() {
        out.push(b'.');
        out.extend_from_slice(fraction);
    }
    true
}

/// The order of two canonical decimals. What is no number is above every number but `-Infinity`, as PostgreSQL has it.
pub(super) fn compare(a: &[u8], b: &[u8]) -> Ordering {
    let foreign = |text: &[u8]| match text {
        [super::FOREIGN, super::FOREIGN, b'-', ..] => -1,
        [super::FOREIGN, ..] => 1,
        _ => 0,
    };
    match foreign(a).cmp(&foreign(b)) {
        Ordering::Equal if foreign(a) != 0 => return a.cmp(b),
        Ordering::Equal => {}
        order => return order,
    }
    match (a.strip_prefix(b"-"), b.strip_prefix(b"-")) {
        (None, None) => magnitude(a, b),
        (Some(a), Some(b)) => magnitude(b, a),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
    }
}

fn magnitude(a: &[u8], b: &[u8]) -> Ordering {
    let whole = |text: &[u8]| text.iter().position(|&c| c == b'.').unwrap_or(text.len());
    // With as many digits before the point, text order is number order: the point and the end are at one place, and an end is below all.
    whole(a).cmp(&whole(b)).then_with(|| a.cmp(b))
}
