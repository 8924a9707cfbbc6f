//! A cursor over an event's bytes. Every read is checked: a malformed event is an error, never a panic.

/// The event ended too early or holds what it must not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

/// Reads forward through bytes.
#[derive(Debug, Clone, Copy)]
pub struct Bytes<'a> {
    rest: &'a [u8],
}

impl<'a> Bytes<'a> {
    /// Starts at the beginning.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }
    /// What is left.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }
    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }
    /// The next `n` bytes.
    #[inline]
    pub fn take(&mut self, n: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(n).ok_or(Malformed("it ended too early"))?;
        self.rest = rest;
        Ok(taken)
    }
    /// The next byte.
    #[inline]
    pub fn byte(&mut self) -> Result<u8, Malformed> {
        Ok(self.take(1)?[0])
    }
    /// An unsigned little-endian number of `n` bytes, at most 8.
    #[inline]
    pub fn little(&mut self, n: usize) -> Result<u64, Malformed> {
        Ok(self.take(n)?.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
    }
    /// An unsigned big-endian number of `n` bytes, at most 8.
    #[inline]
    pub fn big(&mut self, n: usize) -> Result<u64, Malformed> {
        Ok(self.take(n)?.iter().fold(0, |number, &byte| number << 8 | u64::from(byte)))
    }
    /// A fixed number of bytes.
    #[inline]
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.take(N)?.try_into().map_err(|_| Malformed("it ended too early"))
    }
    /// A length-encoded number (MySQL's `net_field_length`).
    pub fn packed(&mut self) -> Result<u64, Malformed> {
        match self.byte()? {
            small @ 0..=250 => Ok(u64::from(small)),
            252 => self.little(2),
            253 => self.little(3),
            254 => self.little(8),
            _ => Err(Malformed("a length is not one")),
        }
    }
    /// Bytes with a length-encoded length before them.
    pub fn packed_bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.packed()?;
        self.take(usize::try_from(length).map_err(|_| Malformed("a length is too large"))?)
    }
}
