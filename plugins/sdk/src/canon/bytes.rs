//! Bytes as hexadecimal.

/// The bytes that hexadecimal text stands for; hyphens (of a UUID) are skipped. False: it is none.
pub(super) fn push_hex(text: &[u8], out: &mut Vec<u8>) -> bool {
    let mut high = None;
    for &c in text {
        let digit = match c {
            b'0'..=b'9' => c - b'0',
            b'a'..=b'f' => c - b'a' + 10,
            b'A'..=b'F' => c - b'A' + 10,
            b'-' => continue,
            _ => return false,
        };
        high = match high {
            None => Some(digit),
            Some(high) => {
                out.push(high << 4 | digit);
                None
            }
        };
    }
    high.is_none()
}

fn push_digits(bytes: &[u8], digits: &[u8; 16], out: &mut Vec<u8>) {
    for &byte in bytes {
        out.push(digits[usize::from(byte >> 4)]);
        out.push(digits[usize::from(byte & 15)]);
    }
}

pub(super) fn push_lower(bytes: &[u8], out: &mut Vec<u8>) {
    push_digits(bytes, b"0123456789abcdef", out);
}

/// As people see it: `0x0aff`.
pub(super) fn print_lower(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"0x");
    push_lower(bytes, out);
}

/// As a key cell: `0AFF`.
pub(super) fn print_upper(bytes: &[u8], out: &mut Vec<u8>) {
    push_digits(bytes, b"0123456789ABCDEF", out);
}
