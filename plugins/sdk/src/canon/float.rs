//! Binary floats. The canonical form is the bits, with -0 as 0; what is not finite has none.

/// Appends a real; false: not finite.
pub(super) fn push_real(value: f32, out: &mut Vec<u8>) -> bool {
    // -0 + 0 is 0.
    out.extend_from_slice(&(value + 0.0).to_le_bytes());
    value.is_finite()
}

/// Appends a double; false: not finite.
pub(super) fn push_double(value: f64, out: &mut Vec<u8>) -> bool {
    out.extend_from_slice(&(value + 0.0).to_le_bytes());
    value.is_finite()
}

fn text(text: &[u8]) -> &str {
    std::str::from_utf8(text).unwrap_or("")
}

/// The double nearest to the text.
pub(super) fn push_double_text(cell: &[u8], out: &mut Vec<u8>) -> bool {
    text(cell).parse().is_ok_and(|value| push_double(value, out))
}

/// The real nearest to the text.
pub(super) fn push_real_text(cell: &[u8], out: &mut Vec<u8>) -> bool {
    text(cell).parse().is_ok_and(|value| push_real(value, out))
}

/// A double as text, rounded to real.
pub(super) fn push_double_as_real(cell: &[u8], out: &mut Vec<u8>) -> bool {
    text(cell).parse::<f64>().is_ok_and(|value| push_real(value as f32, out))
}

/// A real as text, as the double of the same value.
pub(super) fn push_real_as_double(cell: &[u8], out: &mut Vec<u8>) -> bool {
    text(cell).parse::<f32>().is_ok_and(|value| push_double(f64::from(value), out))
}

/// A canonical form as the shortest text of the double of the same value, as both databases read it.
pub(super) fn print(canonical: &[u8], out: &mut Vec<u8>) -> bool {
    let value = if let Ok(bits) = <[u8; 4]>::try_from(canonical) {
        f64::from(f32::from_le_bytes(bits))
    } else if let Ok(bits) = <[u8; 8]>::try_from(canonical) {
        f64::from_le_bytes(bits)
    } else {
        return false;
    };
    let plain = value == 0.0 || (1e-5..1e15).contains(&value.abs());
    out.extend_from_slice(if plain { value.to_string() } else { format!("{value:e}") }.as_bytes());
    true
}
