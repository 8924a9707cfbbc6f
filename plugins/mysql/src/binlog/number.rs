//! DECIMAL as the binlog has it: groups of nine digits in four bytes, big endian, the sign in the first bit
//! (source of the format: MySQL's `strings/decimal.cc`, `bin2decimal`).

use crate::binlog::bytes::{Bytes, Malformed};

const BYTES_OF: [usize; 10] = [0, 1, 1, 2, 2, 3, 3, 4, 4, 4];

/// Reads a DECIMAL(precision, scale) and writes it as MySQL prints it.
pub fn decimal(bytes: &mut Bytes<'_>, precision: u8, scale: u8, out: &mut String) -> Result<(), Malformed> {
    let (precision, scale) = (usize::from(precision), usize::from(scale));
    let whole = precision.checked_sub(scale).ok_or(Malformed("a decimal's scale is above its precision"))?;
    let (whole_groups, whole_rest) = (whole / 9, whole % 9);
    let (part_groups, part_rest) = (scale / 9, scale % 9);
    let size = whole_groups * 4 + BYTES_OF[whole_rest] + part_groups * 4 + BYTES_OF[part_rest];
    let raw = bytes.take(size)?;
    let mut buffer = [0_u8; 64];
    let digits = buffer.get_mut(..size).ok_or(Malformed("a decimal is too long"))?;
    digits.copy_from_slice(raw);
    let first = digits.first_mut().ok_or(Malformed("a decimal has no digits"))?;
    let negative = *first & 0x80 == 0;
    *first ^= 0x80;
    if negative {
        digits.iter_mut().for_each(|byte| *byte = !*byte);
    }
    let mut groups = Bytes::new(digits);
    let start = out.len();
    if negative {
        out.push('-');
    }
    let mut started = false;
    if whole_rest > 0 {
        let group = groups.big(BYTES_OF[whole_rest])?;
        if group != 0 {
            push_number(out, group);
            started = true;
        }
    }
    for _ in 0..whole_groups {
        let group = groups.big(4)?;
        if started {
            push_padded(out, group, 9);
        } else if group != 0 {
            push_number(out, group);
            started = true;
        }
    }
    if !started {
        out.push('0');
    }
    if scale > 0 {
        out.push('.');
        for _ in 0..part_groups {
            push_padded(out, groups.big(4)?, 9);
        }
        if part_rest > 0 {
            push_padded(out, groups.big(BYTES_OF[part_rest])?, part_rest);
        }
    }
    // MySQL has no negative zero.
    if negative && !out[start + 1..].bytes().any(|digit| (b'1'..=b'9').contains(&digit)) {
        out.remove(start);
    }
    Ok(())
}

fn push_number(out: &mut String, number: u64) {
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    let mut rest = number;
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    for &digit in &digits[at..] {
        out.push(char::from(digit));
    }
}

fn push_padded(out: &mut String, number: u64, width: usize) {
    let mut power = 10_u64.pow(u32::try_from(width).unwrap_or(1) - 1);
    let mut rest = number;
    while power > 0 {
        out.push(char::from(b'0' + u8::try_from(rest / power % 10).unwrap_or(0)));
        rest %= power.max(1);
        power /= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &[u8], precision: u8, scale: u8, expected: &str) {
        let mut out = String::new();
        assert_eq!(decimal(&mut Bytes::new(bytes), precision, scale, &mut out), Ok(()));
        assert_eq!(out, expected);
    }

    #[test]
    fn decimals_print_as_mysql_prints_them() {
        // The example of MySQL's source: 1234567890.1234 as decimal(14,4), and its negative.
        check(&[0x81, 0x0D, 0xFB, 0x38, 0xD2, 0x04, 0xD2], 14, 4, "1234567890.1234");
        check(&[0x7E, 0xF2, 0x04, 0xC7, 0x2D, 0xFB, 0x2D], 14, 4, "-1234567890.1234");
        check(&[0x80, 0x00], 4, 2, "0.00");
        check(&[0x80, 0x05], 4, 2, "0.05");
        check(&[0x80, 0x00, 0x00, 0x64], 9, 0, "100");
    }
}
