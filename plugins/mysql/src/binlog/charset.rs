//! Character sets of the binlog, brought to UTF-8.

use crate::binlog::charset_tables::{SINGLE_BYTE, SingleByte};

/// What is known of a character set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Charset {
    /// No text.
    Binary,
    /// utf8mb4: already UTF-8.
    Utf8,
    /// utf8mb3: the same bytes, three to a character at most.
    Utf8mb3,
    /// ascii: the same bytes, one to a character.
    Ascii,
    /// latin1, which in MySQL is Windows-1252 with its five holes filled.
    Latin1,
    /// Another one of one byte, by its table.
    Single(&'static SingleByte),
    /// utf16, big endian.
    Utf16,
    /// ucs2: utf16 without pairs.
    Ucs2,
    /// utf16le.
    Utf16Le,
    /// utf32, big endian.
    Utf32,
    /// One that is not decoded here, by name and widest character: its cells are bytes.
    Other(&'static str, u32),
}

/// The character set of a collation (ids as in `information_schema.COLLATIONS`).
pub fn by_collation(id: u64) -> Charset {
    match id {
        63 => Charset::Binary,
        11 | 65 => Charset::Ascii,
        45 | 46 | 224..=247 | 255..=323 => Charset::Utf8,
        33 | 76 | 83 | 192..=215 | 223 => Charset::Utf8mb3,
        5 | 8 | 15 | 31 | 47..=49 | 94 => Charset::Latin1,
        35 | 90 | 128..=151 | 159 => Charset::Ucs2,
        54 | 55 | 101..=124 => Charset::Utf16,
        56 | 62 => Charset::Utf16Le,
        60 | 61 | 160..=183 => Charset::Utf32,
        1 | 84 => Charset::Other("big5", 2),
        95 | 96 => Charset::Other("cp932", 2),
        97 | 98 => Charset::Other("eucjpms", 3),
        19 | 85 => Charset::Other("euckr", 2),
        248..=250 => Charset::Other("gb18030", 4),
        24 | 86 => Charset::Other("gb2312", 2),
        28 | 87 => Charset::Other("gbk", 2),
        13 | 88 => Charset::Other("sjis", 2),
        10 | 82 => Charset::Other("swe7", 1),
        12 | 91 => Charset::Other("ujis", 3),
        _ => match SINGLE_BYTE.iter().find(|table| table.collations.iter().any(|&known| u64::from(known) == id)) {
            Some(table) => Charset::Single(table),
            None => Charset::Other("unknown", 1),
        },
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
            Self::Ucs2 => 2,
            Self::Binary | Self::Ascii | Self::Latin1 | Self::Single(_) => 1,
            Self::Other(_, widest) => widest,
        }
    }

    /// MySQL's name of it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Binary => "binary",
            Self::Utf8 => "utf8mb4",
            Self::Utf8mb3 => "utf8mb3",
            Self::Ascii => "ascii",
            Self::Latin1 => "latin1",
            Self::Single(table) => table.name,
            Self::Ucs2 => "ucs2",
            Self::Utf16 => "utf16",
            Self::Utf16Le => "utf16le",
            Self::Utf32 => "utf32",
            Self::Other(name, _) => name,
        }
    }

    /// Appends text as UTF-8. False: it is not text of this character set.
    pub fn decode(self, bytes: &[u8], out: &mut String) -> bool {
        match self {
            Self::Utf8 | Self::Utf8mb3 | Self::Ascii => match std::str::from_utf8(bytes) {
                Ok(text) => out.push_str(text),
                Err(_) => return false,
            },
            Self::Latin1 => out.extend(bytes.iter().map(|&byte| if (0x80..0xA0).contains(&byte) { HIGH[usize::from(byte - 0x80)] } else { char::from(byte) })),
            Self::Single(table) => out.extend(bytes.iter().map(|&byte| {
                if byte < 0x80 { char::from(byte) } else { char::from_u32(u32::from(table.high[usize::from(byte - 0x80)])).unwrap_or('?') }
            })),
            Self::Utf16 | Self::Ucs2 | Self::Utf16Le => {
                if !bytes.len().is_multiple_of(2) {
                    return false;
                }
                let units = bytes.chunks_exact(2).map(|pair| if self == Self::Utf16Le { u16::from_le_bytes([pair[0], pair[1]]) } else { u16::from_be_bytes([pair[0], pair[1]]) });
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
            Self::Binary | Self::Other(..) => return false,
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
        check(by_collation(51), b"\xcf\xf0\xe8\x98", Some("При?"));
        check(by_collation(7), b"\xd0", Some("п"));
        check(by_collation(28), b"a", None);
    }

    #[test]
    fn a_collation_says_its_character_set_and_how_wide_it_is() {
        let check = |id: u64, name: &str, widest: u32| assert_eq!((by_collation(id).name(), by_collation(id).widest()), (name, widest));
        check(255, "utf8mb4", 4);
        check(33, "utf8mb3", 3);
        check(11, "ascii", 1);
        check(51, "cp1251", 1);
        check(35, "ucs2", 2);
        check(28, "gbk", 2);
        check(63, "binary", 1);
    }
}
