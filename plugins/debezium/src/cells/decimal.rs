//! DECIMAL as MySQL prints it, with all digits of its scale.

const WHY: &str = "what is no decimal of its digits";

/// From text, with or without an exponent (Java writes `0E-10`).
pub(super) fn of_text(text: &str, precision: u8, scale: u8, out: &mut String) -> Result<(), &'static str> {
    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().map_err(|_| WHY)?),
        None => (unsigned, 0),
    };
    let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all_digits = |text: &str| text.bytes().all(|digit| digit.is_ascii_digit());
    if whole.len() + part.len() == 0 || whole.len() + part.len() > 1000 || !all_digits(whole) || !all_digits(part) || exponent.abs() > 1000 {
        return Err(WHY);
    }
    let digits: String = whole.chars().chain(part.chars()).collect();
    let point = i32::try_from(whole.len()).map_err(|_| WHY)? + exponent;
    print(negative, &digits, point, precision, scale, out)
}

/// From the unscaled number as two's complement, the highest byte first, and its scale.
pub(super) fn of_bytes(bytes: &[u8], own_scale: i32, precision: u8, scale: u8, out: &mut String) -> Result<(), &'static str> {
    // 65 digits take 28 bytes.
    if bytes.is_empty() || bytes.len() > 32 || own_scale.abs() > 1000 {
        return Err(WHY);
    }
    let negative = bytes[0] >= 0x80;
    let mut magnitude = bytes.to_vec();
    if negative {
        let mut carry = true;
        for byte in magnitude.iter_mut().rev() {
            let (sum, more) = (!*byte).overflowing_add(u8::from(carry));
            *byte = sum;
            carry = more;
        }
    }
    let mut reversed = Vec::with_capacity(80);
    while magnitude.iter().any(|byte| *byte != 0) {
        let mut rest = 0_u32;
        for byte in &mut magnitude {
            let number = rest << 8 | u32::from(*byte);
            *byte = u8::try_from(number / 10).unwrap_or(0);
            rest = number % 10;
        }
        reversed.push(char::from(b'0' + u8::try_from(rest).unwrap_or(0)));
    }
    let digits: String = reversed.into_iter().rev().collect();
    let point = i32::try_from(digits.len()).map_err(|_| WHY)? - own_scale;
    print(negative, &digits, point, precision, scale, out)
}

/// Prints digits with their point after the `point`th of them. Nothing may be lost.
fn print(negative: bool, digits: &str, point: i32, precision: u8, scale: u8, out: &mut String) -> Result<(), &'static str> {
    let (precision, scale) = (usize::from(precision), usize::from(scale));
    let digit = |i: i32| usize::try_from(i).ok().and_then(|i| digits.as_bytes().get(i)).map_or('0', |digit| char::from(*digit));
    let zero = digits.bytes().all(|digit| digit == b'0');
    let start = i32::try_from(digits.bytes().take_while(|digit| *digit == b'0').count()).unwrap_or(i32::MAX);
    let scale_end = point + i32::try_from(scale).map_err(|_| WHY)?;
    let lost = (scale_end.max(0)..i32::try_from(digits.len()).map_err(|_| WHY)?).any(|i| digit(i) != '0');
    let whole = usize::try_from(point - start).unwrap_or(0);
    if lost || !zero && whole > precision.saturating_sub(scale) {
        return Err(WHY);
    }
    if negative && !zero {
        out.push('-');
    }
    if zero || whole == 0 {
        out.push('0');
    } else {
        out.extend((start..point).map(digit));
    }
    if scale > 0 {
        out.push('.');
        out.extend((point..scale_end).map(|i| if zero { '0' } else { digit(i) }));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, precision: u8, scale: u8, expected: &str) {
        let mut out = String::new();
        assert_eq!(of_text(text, precision, scale, &mut out), Ok(()), "{text}");
        assert_eq!(out, expected, "{text}");
    }

    #[test]
    fn decimals_print_with_their_scale() {
        check("12.5", 10, 2, "12.50");
        check("-0.05", 4, 2, "-0.05");
        check("0E-10", 20, 10, "0.0000000000");
        check("-0.00", 4, 2, "0.00");
        check("1E+2", 5, 0, "100");
        check("1.5e-3", 5, 4, "0.0015");
        check("100", 3, 0, "100");
        check("00042.50", 6, 2, "42.50");
        check("12.500", 10, 2, "12.50");
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for (text, precision, scale) in [("12.345", 10, 2), ("5e-324", 65, 0), ("1000", 5, 2), ("", 5, 2), ("x", 5, 2), ("1e99999", 65, 30), ("NaN", 5, 2), (".", 5, 2), ("1e", 5, 0)] {
            assert_eq!(of_text(text, precision, scale, &mut String::new()), Err(WHY), "{text}");
        }
    }

    #[test]
    fn unscaled_numbers_are_twos_complement() {
        let check = |bytes: &[u8], own: i32, precision: u8, scale: u8, expected: &str| {
            let mut out = String::new();
            assert_eq!(of_bytes(bytes, own, precision, scale, &mut out), Ok(()));
            assert_eq!(out, expected);
        };
        check(&[0x04, 0xD2], 2, 6, 2, "12.34");
        check(&[0xFB, 0x2E], 2, 6, 2, "-12.34");
        check(&[0x00], 2, 6, 2, "0.00");
        check(&[0xFF], 2, 6, 2, "-0.01");
        check(&[0x00, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF], 0, 20, 0, "18446744073709551615");
        check(&[0x05], -2, 6, 1, "500.0");
    }
}
