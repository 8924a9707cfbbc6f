//! Dates and times: numbers since the epoch, text of ISO 8601, and objects of their parts.

use plumbline_sdk::{Date, DateTime};
use serde::Deserialize;

use super::Unit;
use super::parts::Raw;

/// The days of 0000-01-01 and of 9999-12-31 since the epoch.
const DAYS: std::ops::RangeInclusive<i64> = -719_528..=2_932_896;
const DAY_MICROS: i64 = 86_400_000_000;
/// The longest TIME, 838:59:59.
const LONGEST: i64 = 3_020_399_000_000;

/// YEAR. 1900 is no YEAR of MySQL: it is how the connector reads 0000 from the binlog.
pub(super) fn year(raw: Raw<'_>) -> Result<i64, &'static str> {
    match raw.signed() {
        Some(0 | 1900) => Ok(0),
        Some(year @ 1901..=2155) => Ok(year),
        _ => Err("what is no year from 1901 to 2155 or 0"),
    }
}

/// DATE.
pub(super) fn date(raw: Raw<'_>) -> Result<Date, &'static str> {
    const WHY: &str = "what is no date from year 0 to 9999";
    match raw {
        Raw::Number(text) => text.parse().ok().filter(|days| DAYS.contains(days)).map(Date::of_day).ok_or(WHY),
        Raw::Text(text) => {
            let (date, rest) = iso_date(text).ok_or(WHY)?;
            if matches!(rest, "" | "Z") { Ok(date) } else { Err(WHY) }
        }
        Raw::Object(text) => parts(text).and_then(|parts| parts.date()).ok_or(WHY),
        _ => Err(WHY),
    }
}

/// DATETIME: the row's own wall time.
pub(super) fn datetime(raw: Raw<'_>, unit: Unit) -> Result<DateTime, &'static str> {
    const WHY: &str = "what is no date and time from year 0 to 9999";
    match raw {
        Raw::Number(text) => text.parse().ok().and_then(|number| micros(number, unit)).and_then(of_micros).ok_or(WHY),
        Raw::Text(text) => {
            let (at, rest) = iso_datetime(text).ok_or(WHY)?;
            if matches!(rest, "" | "Z") { Ok(at) } else { Err(WHY) }
        }
        Raw::Object(text) => parts(text).and_then(|parts| parts.datetime()).ok_or(WHY),
        _ => Err(WHY),
    }
}

/// TIMESTAMP: text with its offset, brought to UTC. The epoch is no TIMESTAMP of MySQL: it stands for the zero timestamp.
pub(super) fn timestamp(raw: Raw<'_>) -> Result<DateTime, &'static str> {
    const WHY: &str = "what is no time stamp with an offset";
    let at = match raw {
        Raw::Text(text) => {
            let (at, rest) = iso_datetime(text).ok_or(WHY)?;
            let offset = offset_micros(rest).ok_or(WHY)?;
            if offset == 0 { at } else { to_micros(at).and_then(|micros| of_micros(micros - offset)).ok_or(WHY)? }
        }
        Raw::Object(text) => {
            let parts = parts(text).ok_or(WHY)?;
            if parts.offset_seconds.unwrap_or(0) != 0 {
                return Err(WHY);
            }
            parts.datetime().ok_or(WHY)?
        }
        _ => return Err(WHY),
    };
    let epoch = DateTime { date: Date { year: 1970, month: 1, day: 1 }, ..DateTime::default() };
    Ok(if at == epoch { DateTime::default() } else { at })
}

/// TIME in microseconds.
pub(super) fn time(raw: Raw<'_>, unit: Unit) -> Result<i64, &'static str> {
    const WHY: &str = "what is no time up to 838:59:59";
    let micros = match raw {
        Raw::Number(text) => text.parse().ok().and_then(|number| micros(number, unit)),
        Raw::Text(text) => {
            let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
            iso_time(text).filter(|(_, rest)| matches!(*rest, "" | "Z")).map(|((hour, minute, second, part), _)| {
                let size = (i64::from(hour) * 3600 + i64::from(minute) * 60 + i64::from(second)) * 1_000_000 + i64::from(part);
                if negative { -size } else { size }
            })
        }
        Raw::Object(text) => parts(text).and_then(|parts| parts.duration()),
        _ => None,
    };
    micros.filter(|micros| (-LONGEST..=LONGEST).contains(micros)).ok_or(WHY)
}

/// A number of some unit in microseconds; None where nanoseconds would be lost.
fn micros(number: i64, unit: Unit) -> Option<i64> {
    match unit {
        Unit::Millis => number.checked_mul(1000),
        Unit::Micros => Some(number),
        Unit::Nanos => (number % 1000 == 0).then_some(number / 1000),
    }
}

fn of_micros(micros: i64) -> Option<DateTime> {
    let (days, rest) = (micros.div_euclid(DAY_MICROS), micros.rem_euclid(DAY_MICROS));
    if !DAYS.contains(&days) {
        return None;
    }
    let seconds = rest / 1_000_000;
    Some(DateTime {
        date: Date::of_day(days),
        hour: u8::try_from(seconds / 3600).ok()?,
        minute: u8::try_from(seconds / 60 % 60).ok()?,
        second: u8::try_from(seconds % 60).ok()?,
        micros: u32::try_from(rest % 1_000_000).ok()?,
    })
}

fn to_micros(at: DateTime) -> Option<i64> {
    let seconds = i64::from(at.hour) * 3600 + i64::from(at.minute) * 60 + i64::from(at.second);
    Some(days(at.date)? * DAY_MICROS + seconds * 1_000_000 + i64::from(at.micros))
}

/// The day since the epoch of a date of the calendar.
fn days(date: Date) -> Option<i64> {
    if date.is_zero() {
        return None;
    }
    let (month, day) = (i64::from(date.month), i64::from(date.day));
    let year = i64::from(date.year) - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    Some(era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468)
}

/// Takes a number of exactly `digits` digits.
fn digits(text: &str, digits: usize) -> Option<(u32, &str)> {
    let (number, rest) = text.split_at_checked(digits)?;
    if !number.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    Some((number.parse().ok()?, rest))
}

fn iso_date(text: &str) -> Option<(Date, &str)> {
    let (year, rest) = digits(text, 4)?;
    let (month, rest) = digits(rest.strip_prefix('-')?, 2)?;
    let (day, rest) = digits(rest.strip_prefix('-')?, 2)?;
    let date = Date { year: u16::try_from(year).ok()?, month: u8::try_from(month).ok()?, day: u8::try_from(day).ok()? };
    (month <= 12 && day <= 31).then_some((date, rest))
}

/// Hours, minutes, seconds, microseconds.
type Clock = (u16, u8, u8, u32);

/// Hours (of two or three digits), minutes, seconds (which may be missing) and up to nine digits of them.
fn iso_time(text: &str) -> Option<(Clock, &str)> {
    let width = text.find(':').filter(|width| (2..=3).contains(width))?;
    let (hour, rest) = digits(text, width)?;
    let (minute, rest) = digits(rest.strip_prefix(':')?, 2)?;
    let (second, rest) = match rest.strip_prefix(':') {
        Some(rest) => digits(rest, 2)?,
        None => (0, rest),
    };
    let (micros, rest) = match rest.strip_prefix('.') {
        None => (0, rest),
        Some(rest) => {
            let width = rest.bytes().take_while(u8::is_ascii_digit).count();
            let (part, rest) = digits(rest, width)?;
            let nanos = part.checked_mul(10_u32.checked_pow(9_u32.checked_sub(u32::try_from(width).ok()?)?)?)?;
            if width == 0 || nanos % 1000 != 0 {
                return None;
            }
            (nanos / 1000, rest)
        }
    };
    let parts = (u16::try_from(hour).ok()?, u8::try_from(minute).ok()?, u8::try_from(second).ok()?, micros);
    (minute < 60 && second < 60).then_some((parts, rest))
}

fn iso_datetime(text: &str) -> Option<(DateTime, &str)> {
    let (date, rest) = iso_date(text)?;
    let ((hour, minute, second, micros), rest) = iso_time(rest.strip_prefix(['T', ' '])?)?;
    Some((DateTime { date, hour: u8::try_from(hour).ok().filter(|hour| *hour < 24)?, minute, second, micros }, rest))
}

/// `Z` or `+02:00`.
fn offset_micros(text: &str) -> Option<i64> {
    if text == "Z" {
        return Some(0);
    }
    let (sign, rest) = if let Some(rest) = text.strip_prefix('+') { (1, rest) } else { (-1, text.strip_prefix('-')?) };
    let ((hour, minute, second, micros), rest) = iso_time(rest)?;
    (rest.is_empty() && hour < 24 && micros == 0).then_some(sign * ((i64::from(hour) * 60 + i64::from(minute)) * 60 + i64::from(second)) * 1_000_000)
}

/// What `time.precision.mode = structured` sends. Zero dates stay what they are.
#[derive(Deserialize)]
struct Parts {
    year: Option<u16>,
    month: Option<u8>,
    day: Option<u8>,
    #[serde(alias = "hours")]
    hour: Option<i32>,
    #[serde(alias = "minutes")]
    minute: Option<i32>,
    #[serde(alias = "seconds")]
    second: Option<i32>,
    nanos: Option<i64>,
    picoseconds: Option<i64>,
    #[serde(alias = "offset_total_seconds", alias = "offsetSeconds")]
    offset_seconds: Option<i32>,
    special_value: Option<String>,
}

fn parts(text: &str) -> Option<Parts> {
    serde_json::from_str::<Parts>(text).ok().filter(|parts| parts.special_value.is_none())
}

impl Parts {
    fn date(&self) -> Option<Date> {
        let date = Date { year: self.year?, month: self.month?, day: self.day? };
        (date.year <= 9999 && date.month <= 12 && date.day <= 31).then_some(date)
    }
    fn micros(&self) -> Option<i64> {
        match (self.nanos, self.picoseconds) {
            (_, Some(picos)) => (picos % 1_000_000 == 0).then_some(picos / 1_000_000),
            (nanos, None) => micros(nanos.unwrap_or(0), Unit::Nanos),
        }
    }
    fn datetime(&self) -> Option<DateTime> {
        let small = |number: Option<i32>, limit: u8| u8::try_from(number?).ok().filter(|number| *number < limit);
        let micros = u32::try_from(self.micros()?).ok().filter(|micros| *micros < 1_000_000)?;
        Some(DateTime { date: self.date()?, hour: small(self.hour, 24)?, minute: small(self.minute, 60)?, second: small(self.second, 60)?, micros })
    }
    fn duration(&self) -> Option<i64> {
        let seconds = (i64::from(self.hour?) * 60 + i64::from(self.minute?)) * 60 + i64::from(self.second?);
        Some(seconds * 1_000_000 + self.micros()?)
    }
}
