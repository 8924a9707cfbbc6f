//! Integers, booleans and bit strings. Every function says whether the text had the right shape, and may leave a part of it in `out`
//! when it had not.

pub(super) fn bool_digit(value: bool) -> u8 {
    if value { b'1' } else { b'0' }
}

pub(super) fn push_signed(value: i64, out: &mut Vec<u8>) {
    if value < 0 {
        out.push(b'-');
    }
    push_unsigned(value.unsigned_abs(), out);
}

pub(super) fn push_unsigned(mut value: u64, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// `1` for every number but 0.
pub(super) fn push_nonzero(text: &[u8], out: &mut Vec<u8>) -> bool {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return false;
    }
    out.push(bool_digit(digits.iter().any(|&digit| digit != b'0')));
    true
}

pub(super) fn push_bool(text: &[u8], out: &mut Vec<u8>) -> bool {
    match text {
        b"t" | b"true" => out.push(b'1'),
        b"f" | b"false" => out.push(b'0'),
        _ => return false,
    }
    true
}

/// The number that a string of binary digits stands for.
pub(super) fn push_bit_string(text: &[u8], out: &mut Vec<u8>) -> bool {
    let mut value: u64 = 0;
    for &digit in text {
        if !matches!(digit, b'0' | b'1') || value >> 63 != 0 {
            return false;
        }
        value = value << 1 | u64::from(digit == b'1');
    }
    push_unsigned(value, out);
    !text.is_empty()
}

/// The number in exactly `size` bytes, big endian, given as hexadecimal.
pub(super) fn push_hex(text: &[u8], size: usize, out: &mut Vec<u8>) -> bool {
    let Some(value) = std::str::from_utf8(text).ok().filter(|text| text.bytes().all(|digit| digit.is_ascii_hexdigit())).and_then(|text| u64::from_str_radix(text, 16).ok())
    else {
        return false;
    };
    push_unsigned(value, out);
    text.len() == size * 2
}

fn number(canonical: &[u8]) -> Option<u64> {
    std::str::from_utf8(canonical).ok()?.parse().ok()
}

/// A canonical number as `width` binary digits; false where it does not fit.
pub(super) fn print_bits(canonical: &[u8], width: usize, out: &mut Vec<u8>) -> bool {
    let Some(value) = number(canonical) else { return false };
    let digits = format!("{value:b}");
    for _ in digits.len()..width {
        out.push(b'0');
    }
    out.extend_from_slice(digits.as_bytes());
    width == 0 || digits.len() <= width
}

/// A canonical number as hexadecimal of `size` bytes.
pub(super) fn print_hex(canonical: &[u8], size: usize, out: &mut Vec<u8>) -> bool {
    let Some(value) = number(canonical) else { return false };
    out.extend_from_slice(format!("{value:0digits$X}", digits = size * 2).as_bytes());
    true
}
