//! Character sets of the binlog, brought to UTF-8.

/// What is known of a character set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Charset {
    /// No text.
    Binary,
    /// utf8mb4, utf8mb3 and ascii: already UTF-8.
    Utf8,
    /// utf8mb3: the same bytes, three to a character at most.
    Utf8mb3,
    /// latin1, which in MySQL is Windows-1252 with its five holes filled.
    Latin1,
    /// ucs2 and utf16, big endian.
    Utf16,
    /// utf16le.
    Utf16Le,
    /// utf32, big endian.
    Utf32,
    /// One that is not decoded here: its cells are bytes.
    Other,
}

/// The character set of a collation (ids as in `information_schema.COLLATIONS`).
pub fn by_collation(id: u64) -> Charset {
    match id {
        63 => Charset::Binary,
        11 | 65 | 45 | 46 | 224..=247 | 255..=323 => Charset::Utf8,
        33 | 76 | 83 | 192..=215 | 223 => Charset::Utf8mb3,
        5 | 8 | 15 | 31 | 47 | 48 | 49 | 94 => Charset::Latin1,
        35 | 90 | 128..=151 | 159 | 54 | 55 | 101..=124 => Charset::Utf16,
        56 | 62 => Charset::Utf16Le,
        60 | 61 | 160..=183 => Charset::Utf32,
        _ => Charset::Other,
    }
}

/// Windows-1252 from 0x80 to 0x9F as MySQL has it: its holes are the control characters themselves.
const HIGH: [char; 32] = [
    '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž', '\u{8f}', '\u{90}', '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ',
    '\u{9d}', 'ž', 'Ÿ',
];

impl Charset {
    /// Bytes that the widest character takes: VARCHAR(n) has room for n of them.
    pub fn widest(self) -> u32 {
        match self {
            Self::Utf8 | Self::Utf16 | Self::Utf16Le | Self::Utf32 => 4,
            Self::Utf8mb3 => 3,
            Self::Binary | Self::Latin1 | Self::Other => 1,
        }
    }

    /// MySQL's name of it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Binary => "binary",
            Self::Utf8 => "utf8mb4",
            Self::Utf8mb3 => "utf8mb3",
            Self::Latin1 => "latin1",
            Self::Utf16 => "utf16",
            Self::Utf16Le => "utf16le",
            Self::Utf32 => "utf32",
            Self::Other => "other",
        }
    }

    /// Appends text as UTF-8. False: it is not text of this character set.
    pub fn decode(self, bytes: &[u8], out: &mut String) -> bool {
        match self {
            Self::Utf8 | Self::Utf8mb3 => match std::str::from_utf8(bytes) {
                Ok(text) => out.push_str(text),
                Err(_) => return false,
            },
            Self::Latin1 => out.extend(bytes.iter().map(|&byte| if (0x80..0xA0).contains(&byte) { HIGH[usize::from(byte - 0x80)] } else { char::from(byte) })),
            Self::Utf16 | Self::Utf16Le => {
                if !bytes.len().is_multiple_of(2) {
                    return false;
                }
                let units = bytes.chunks_exact(2).map(|pair| if self == Self::Utf16 { u16::from_be_bytes([pair[0], pair[1]]) } else { u16::from_le_bytes([pair[0], pair[1]]) });
                for letter in char::decode_utf16(units) {
                    match letter {
                        Ok(letter) => out.push(letter),
                        Err(_) => return false,
                    }
                }
            }
            Self::Utf32 => {
                for unit in bytes.chunks(4) {
                    let number = <[u8; 4]>::try_from(unit).map(u32::from_be_bytes).ok().and_then(char::from_u32);
                    match number {
                        Some(letter) => out.push(letter),
                        None => return false,
                    }
                }
            }
            Self::Binary | Self::Other => return false,
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(charset: Charset, bytes: &[u8], expected: Option<&str>) {
        let mut out = String::new();
        assert_eq!(charset.decode(bytes, &mut out).then_some(out.as_str()), expected);
    }

    #[test]
    fn text_is_decoded_by_its_character_set() {
        check(Charset::Latin1, b"\xe9\x80\x81", Some("é€\u{81}"));
        check(Charset::Utf8, "é😀".as_bytes(), Some("é😀"));
        check(Charset::Utf8, b"\xff", None);
        check(Charset::Utf16, &[0xD8, 0x3D, 0xDE, 0x00], Some("😀"));
        check(Charset::Utf32, &[0, 1, 0xF6, 0], Some("😀"));
        check(Charset::Other, b"a", None);
    }
}
