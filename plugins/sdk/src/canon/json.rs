//! JSON as a canonical tree: no white space, keys sorted (by length, then bytes, as both servers do), the last of equal keys, strings
//! decoded, numbers by value.
//!
//! MySQL does not print whether a number is a DOUBLE or a DECIMAL, so one form must serve both. An integer that MySQL keeps as one
//! (from -2^63 to 2^64-1, written without point and exponent) is exact. Every other number is the double nearest to it, in its shortest
//! text: exact for all decimals of up to 15 digits. Two longer decimals that are one double are equal here.

use super::integer;

/// Deeper trees are not read: MySQL's limit is 100.
const DEPTH: usize = 128;

/// Appends the canonical tree; false: it is no JSON, too deep, or has a string that is no text (half a surrogate pair).
pub(super) fn push(text: &[u8], out: &mut Vec<u8>) -> bool {
    let mut parser = Parser { text, at: 0 };
    parser.value(DEPTH, out).is_some() && {
        parser.space();
        parser.at == text.len()
    }
}

struct Parser<'a> {
    text: &'a [u8],
    at: usize,
}

/// A member of an object as it stands in the output: where it starts, where its key ends, where it ends.
struct Member {
    start: usize,
    key_end: usize,
    end: usize,
}

impl Parser<'_> {
    fn space(&mut self) {
        while matches!(self.text.get(self.at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// The next byte after white space, not taken.
    fn peek(&mut self) -> Option<u8> {
        self.space();
        self.text.get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    fn value(&mut self, depth: usize, out: &mut Vec<u8>) -> Option<()> {
        let depth = depth.checked_sub(1)?;
        match self.peek()? {
            b'{' => self.object(depth, out),
            b'[' => self.array(depth, out),
            b'"' => self.string(out),
            b't' => self.word(b"true", out),
            b'f' => self.word(b"false", out),
            b'n' => self.word(b"null", out),
            _ => self.number(out),
        }
    }

    fn word(&mut self, word: &[u8], out: &mut Vec<u8>) -> Option<()> {
        self.text[self.at..].starts_with(word).then(|| {
            out.extend_from_slice(word);
            self.at += word.len();
        })
    }

    fn array(&mut self, depth: usize, out: &mut Vec<u8>) -> Option<()> {
        self.take(b'[')?;
        out.push(b'[');
        if self.peek()? != b']' {
            loop {
                self.value(depth, out)?;
                if self.peek()? != b',' {
                    break;
                }
                self.at += 1;
                out.push(b',');
            }
        }
        self.take(b']')?;
        out.push(b']');
        Some(())
    }

    fn object(&mut self, depth: usize, out: &mut Vec<u8>) -> Option<()> {
        self.take(b'{')?;
        out.push(b'{');
        let base = out.len();
        let mut members = Vec::new();
        if self.peek()? != b'}' {
            loop {
                let start = out.len();
                self.peek()?;
                self.string(out)?;
                let key_end = out.len();
                self.take(b':')?;
                out.push(b':');
                self.value(depth, out)?;
                out.push(b',');
                members.push(Member { start, key_end, end: out.len() });
                if self.peek()? != b',' {
                    break;
                }
                self.at += 1;
            }
        }
        self.take(b'}')?;
        sort(members, base, out);
        if out.len() > base {
            out.pop();
        }
        out.push(b'}');
        Some(())
    }

    /// A string, decoded, with `"` and `\` escaped so that the tree stays readable in one way only.
    fn string(&mut self, out: &mut Vec<u8>) -> Option<()> {
        self.take(b'"')?;
        out.push(b'"');
        loop {
            let rest = &self.text[self.at..];
            let plain = rest.iter().position(|c| matches!(c, b'"' | b'\\'))?;
            out.extend_from_slice(&rest[..plain]);
            self.at += plain + 1;
            if rest[plain] == b'"' {
                out.push(b'"');
                return Some(());
            }
            let escape = *self.text.get(self.at)?;
            self.at += 1;
            match escape {
                b'"' | b'\\' => out.extend_from_slice(&[b'\\', escape]),
                b'/' => out.push(b'/'),
                b'b' => out.push(8),
                b'f' => out.push(12),
                b'n' => out.push(b'\n'),
                b'r' => out.push(b'\r'),
                b't' => out.push(b'\t'),
                b'u' => self.unicode(out)?,
                _ => return None,
            }
        }
    }

    fn unicode(&mut self, out: &mut Vec<u8>) -> Option<()> {
        let mut code = self.four_digits()?;
        if (0xD800..0xDC00).contains(&code) {
            if self.text.get(self.at..self.at + 2)? != b"\\u" {
                return None;
            }
            self.at += 2;
            let low = self.four_digits()?.checked_sub(0xDC00).filter(|low| *low < 0x400)?;
            code = 0x10000 + ((code - 0xD800) << 10) + low;
        }
        let c = char::from_u32(code)?;
        if matches!(c, '"' | '\\') {
            out.push(b'\\');
        }
        out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        Some(())
    }

    fn four_digits(&mut self) -> Option<u32> {
        let digits = self.text.get(self.at..self.at + 4)?;
        self.at += 4;
        digits.iter().try_fold(0, |code, &digit| Some(code * 16 + char::from(digit).to_digit(16)?))
    }

    fn number(&mut self, out: &mut Vec<u8>) -> Option<()> {
        let rest = &self.text[self.at..];
        let end = rest.iter().position(|c| !matches!(c, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E')).unwrap_or(rest.len());
        self.at += end;
        push_number(std::str::from_utf8(&rest[..end]).ok()?, out)
    }
}

fn push_number(text: &str, out: &mut Vec<u8>) -> Option<()> {
    if let Ok(value) = text.parse::<i64>() {
        integer::push_signed(value, out);
        return Some(());
    }
    if let Ok(value) = text.parse::<u64>() {
        integer::push_unsigned(value, out);
        return Some(());
    }
    let value: f64 = text.parse().ok()?;
    if !value.is_finite() {
        // Above every double: MySQL refuses it, so it equals nothing.
        out.extend_from_slice(text.as_bytes());
        return Some(());
    }
    if value == 0.0 {
        out.push(b'0');
        return Some(());
    }
    // `d.ddde±x`, the shortest digits of the double. A whole number below 10^20 in full, so that 1e2 is 100.
    let text = format!("{value:e}");
    let (digits, exponent) = text.split_once('e')?;
    let exponent: i32 = exponent.parse().ok()?;
    let fraction = digits.split_once('.').map_or(0, |(_, fraction)| fraction.len());
    match usize::try_from(exponent) {
        Ok(exponent) if exponent < 20 && fraction <= exponent => {
            out.extend(digits.bytes().filter(|&c| c != b'.'));
            out.resize(out.len() + exponent - fraction, b'0');
        }
        _ => out.extend_from_slice(text.as_bytes()),
    }
    Some(())
}

/// Sorts the members of an object that stand in `out` from `base`, and keeps the last of equal keys.
fn sort(mut members: Vec<Member>, base: usize, out: &mut Vec<u8>) {
    let key = |member: &Member| &out[member.start..member.key_end];
    let order = |a: &Member, b: &Member| (key(a).len(), key(a)).cmp(&(key(b).len(), key(b)));
    if members.windows(2).all(|pair| order(&pair[0], &pair[1]).is_lt()) {
        return;
    }
    // Stable: equal keys stay in the order in which they came.
    members.sort_by(order);
    let mut sorted = Vec::with_capacity(out.len() - base);
    for (i, member) in members.iter().enumerate() {
        let last = members.get(i + 1).is_none_or(|next| order(member, next).is_ne());
        if last {
            sorted.extend_from_slice(&out[member.start..member.end]);
        }
    }
    out.truncate(base);
    out.extend_from_slice(&sorted);
}
