//! Dates and times as the binlog has them (source of the formats: MySQL's `sql-common/my_time.cc`).

use plumbline_sdk::{Date, DateTime};

use crate::binlog::bytes::{Bytes, Malformed};

/// DATE: three bytes.
#[inline]
pub fn date(bytes: &mut Bytes<'_>) -> Result<Date, Malformed> {
    let packed = bytes.little(3)?;
    Ok(Date { day: (packed & 31) as u8, month: (packed >> 5 & 15) as u8, year: (packed >> 9) as u16 })
}

/// The fraction of `fsp` digits, in microseconds.
#[inline]
fn fraction(bytes: &mut Bytes<'_>, fsp: u8) -> Result<u32, Malformed> {
    Ok(match fsp {
        0 => 0,
        1 | 2 => bytes.big(1)? as u32 * 10_000,
        3 | 4 => bytes.big(2)? as u32 * 100,
        _ => bytes.big(3)? as u32,
    })
}

/// DATETIME(fsp): five bytes and the fraction.
#[inline]
pub fn datetime(bytes: &mut Bytes<'_>, fsp: u8) -> Result<DateTime, Malformed> {
    let packed = (bytes.big(5)?).wrapping_sub(0x80_0000_0000);
    let micros = fraction(bytes, fsp)?;
    Ok(of_packed(packed, micros))
}

/// A date and time from MySQL's packed form without its fraction.
pub fn of_packed(packed: u64, micros: u32) -> DateTime {
    let (days, time) = (packed >> 17, packed & 0x1_FFFF);
    let months = days >> 5;
    DateTime {
        date: Date { year: (months / 13) as u16, month: (months % 13) as u8, day: (days & 31) as u8 },
        hour: (time >> 12) as u8,
        minute: (time >> 6 & 63) as u8,
        second: (time & 63) as u8,
        micros,
    }
}

/// TIMESTAMP(fsp): seconds since the epoch and the fraction, as civil time in UTC. Second 0 is the zero timestamp.
#[inline]
pub fn timestamp(bytes: &mut Bytes<'_>, fsp: u8) -> Result<DateTime, Malformed> {
    let seconds = bytes.big(4)?;
    let micros = fraction(bytes, fsp)?;
    if seconds == 0 {
        return Ok(DateTime::default());
    }
    Ok(civil(seconds, micros))
}

/// Civil UTC of seconds since the epoch; four bytes hold them.
fn civil(seconds: u64, micros: u32) -> DateTime {
    let (day, time) = (seconds / 86_400, seconds % 86_400);
    DateTime {
        date: Date::of_day(day as i64),
        hour: (time / 3600) as u8,
        minute: (time / 60 % 60) as u8,
        second: (time % 60) as u8,
        micros,
    }
}

/// TIME(fsp) in microseconds.
#[inline]
pub fn time(bytes: &mut Bytes<'_>, fsp: u8) -> Result<i64, Malformed> {
    let packed = match fsp {
        0 => (bytes.big(3)? as i64 - 0x80_0000) << 24,
        1..=4 => {
            let size = if fsp <= 2 { 1 } else { 2 };
            let mut whole = bytes.big(3)? as i64 - 0x80_0000;
            let mut part = bytes.big(size)? as i64;
            if whole < 0 && part != 0 {
                whole += 1;
                part -= 1 << (8 * size);
            }
            (whole << 24) + part * if size == 1 { 10_000 } else { 100 }
        }
        _ => bytes.big(6)? as i64 - 0x8000_0000_0000,
    };
    Ok(time_of_packed(packed))
}

/// A time in microseconds from MySQL's packed form.
pub fn time_of_packed(packed: i64) -> i64 {
    let size = packed.unsigned_abs();
    let (whole, micros) = (size >> 24, size & 0xFF_FFFF);
    let seconds = (whole >> 12 & 0x3FF) * 3600 + (whole >> 6 & 63) * 60 + (whole & 63);
    let total = (seconds * 1_000_000 + micros) as i64;
    if packed < 0 { -total } else { total }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_below_zero_keep_their_fraction() {
        // -00:00:00.000001 and -00:00:00.5, as MySQL writes them.
        let packed = |value: i64| (value + 0x8000_0000_0000).to_be_bytes()[2..].to_vec();
        assert_eq!(time(&mut Bytes::new(&packed(-1)), 6), Ok(-1));
        assert_eq!(time(&mut Bytes::new(&[0x7F, 0xFF, 0xFF, 0xCE]), 1), Ok(-500_000));
        assert_eq!(time(&mut Bytes::new(&[0x80, 0x00, 0x01]), 0), Ok(1_000_000));
        assert_eq!(time(&mut Bytes::new(&[0x7F, 0xFF, 0xFF]), 0), Ok(-1_000_000));
    }

    #[test]
    fn a_timestamp_is_civil_time_in_utc() {
        let at = timestamp(&mut Bytes::new(&[0x7F, 0xFF, 0xFF, 0xFF, 0x0F, 0x42, 0x3F]), 6);
        let expected = DateTime { date: Date { year: 2038, month: 1, day: 19 }, hour: 3, minute: 14, second: 7, micros: 999_999 };
        assert_eq!(at, Ok(expected));
        assert_eq!(timestamp(&mut Bytes::new(&[0, 0, 0, 0]), 0), Ok(DateTime::default()));
        let leap = timestamp(&mut Bytes::new(&951_782_400_u32.to_be_bytes()), 0).map(|at| at.date);
        assert_eq!(leap, Ok(Date { year: 2000, month: 2, day: 29 }));
    }
}
