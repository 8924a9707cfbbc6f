//! Dates, time stamps, times and intervals.

use super::integer;
use crate::value::{Date, DateTime};

const DAY: i64 = 86_400_000_000;

fn push_padded(value: u32, width: usize, out: &mut Vec<u8>) {
    let mut digits = [b'0'; 10];
    let mut rest = value;
    for digit in digits[..width].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    out.extend_from_slice(&digits[..width]);
}

pub(super) fn push_date(date: Date, out: &mut Vec<u8>) {
    push_padded(date.year.into(), 4, out);
    out.push(b'-');
    push_padded(date.month.into(), 2, out);
    out.push(b'-');
    push_padded(date.day.into(), 2, out);
}

pub(super) fn push_datetime(at: DateTime, out: &mut Vec<u8>) {
    push_date(at.date, out);
    for (mark, part) in [(b' ', at.hour), (b':', at.minute), (b':', at.second)] {
        out.push(mark);
        push_padded(part.into(), 2, out);
    }
    out.push(b'.');
    push_padded(at.micros, 6, out);
}

/// Whether `text` has the shape of `pattern`, in which `0` stands for a digit.
fn shaped(text: &[u8], pattern: &[u8]) -> bool {
    text.len() == pattern.len() && text.iter().zip(pattern).all(|(&c, &p)| if p == b'0' { c.is_ascii_digit() } else { c == p })
}

/// `YYYY-MM-DD`.
pub(super) fn push_date_text(text: &[u8], out: &mut Vec<u8>) -> bool {
    out.extend_from_slice(text);
    shaped(text, b"0000-00-00")
}

/// `YYYY-MM-DD HH:MM:SS[.f…]`.
pub(super) fn push_datetime_text(text: &[u8], out: &mut Vec<u8>) -> bool {
    let Some((civil, fraction)) = text.split_at_checked(19) else { return false };
    out.extend_from_slice(civil);
    shaped(civil, b"0000-00-00 00:00:00") && push_fraction(fraction, out)
}

/// `.f…` with up to six digits, or nothing, as `.ffffff`.
fn push_fraction(fraction: &[u8], out: &mut Vec<u8>) -> bool {
    let digits = match fraction {
        [] => fraction,
        [b'.', digits @ ..] if !digits.is_empty() => digits,
        _ => return false,
    };
    if digits.len() > 6 || !digits.iter().all(u8::is_ascii_digit) {
        return false;
    }
    out.push(b'.');
    out.extend_from_slice(digits);
    out.extend_from_slice(&b"000000"[digits.len()..]);
    true
}

/// A date or time stamp of the target. `short`: midnight is left out, so that it equals a DATE.
pub(super) fn push_target_civil(text: &[u8], short: bool, out: &mut Vec<u8>) -> bool {
    let start = out.len();
    let (text, before_christ) = match text.strip_suffix(b" BC") {
        Some(text) => (text, true),
        None => (text, false),
    };
    let text = text.strip_suffix(b"+00").unwrap_or(text);
    let done = if text.len() == 10 {
        push_date_text(text, out) && (short || push_datetime_tail(out))
    } else {
        push_datetime_text(text, out)
    };
    if !done {
        return false;
    }
    if before_christ {
        // The year before year 1 is MySQL's year 0; earlier ones it does not have.
        if out[start..].first_chunk() != Some(b"0001") {
            return false;
        }
        out[start + 3] = b'0';
    }
    if short && out[start..].ends_with(b" 00:00:00.000000") {
        out.truncate(start + 10);
    }
    true
}

fn push_datetime_tail(out: &mut Vec<u8>) -> bool {
    out.extend_from_slice(b" 00:00:00.000000");
    true
}

/// `[-]H…:MM:SS[.f…]` as microseconds.
pub(super) fn time_micros(text: &[u8]) -> Option<i64> {
    let (negative, text) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    let hours_end = text.iter().position(|&c| c == b':')?;
    let (hours, rest) = text.split_at(hours_end);
    let (clock, fraction) = rest.split_at_checked(6)?;
    if !shaped(clock, b":00:00") {
        return None;
    }
    let two = |at: usize| i64::from(clock[at] - b'0') * 10 + i64::from(clock[at + 1] - b'0');
    let micros = match fraction {
        [] => 0,
        [b'.', digits @ ..] if digits.len() <= 6 => whole(digits)? * 10_i64.pow(6 - digits.len() as u32),
        _ => return None,
    };
    let seconds = whole(hours)?.checked_mul(3600)?.checked_add(two(1) * 60 + two(4))?;
    let micros = seconds.checked_mul(1_000_000)?.checked_add(micros)?;
    Some(if negative { -micros } else { micros })
}

fn whole(digits: &[u8]) -> Option<i64> {
    if digits.is_empty() || digits.len() > 18 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(digits.iter().fold(0, |value, &digit| value * 10 + i64::from(digit - b'0')))
}

/// A time as microseconds.
pub(super) fn push_time_text(text: &[u8], out: &mut Vec<u8>) -> bool {
    time_micros(text).is_some_and(|micros| {
        integer::push_signed(micros, out);
        true
    })
}

/// An interval in style `postgres` (`1 year 2 mons -3 days +04:05:06.7`) as microseconds, as `extract(epoch …)` counts: a day has 24
/// hours, a month 30 days, twelve months 365.25 days.
pub(super) fn push_interval(text: &[u8], out: &mut Vec<u8>) -> bool {
    interval_micros(text).is_some_and(|micros| {
        integer::push_signed(micros, out);
        true
    })
}

fn interval_micros(text: &[u8]) -> Option<i64> {
    let (mut months, mut micros) = (0_i64, 0_i64);
    let mut words = text.split(|&c| c == b' ');
    let mut any = false;
    while let Some(word) = words.next() {
        any = true;
        if word.contains(&b':') {
            micros = micros.checked_add(time_micros(word)?)?;
            continue;
        }
        let number = match word {
            [b'-', digits @ ..] => -whole(digits)?,
            [b'+', digits @ ..] => whole(digits)?,
            digits => whole(digits)?,
        };
        match words.next()? {
            b"year" | b"years" => months = months.checked_add(number.checked_mul(12)?)?,
            b"mon" | b"mons" => months = months.checked_add(number)?,
            b"day" | b"days" => micros = micros.checked_add(number.checked_mul(DAY)?)?,
            _ => return None,
        }
    }
    let years = (months / 12).checked_mul(DAY * 1461 / 4)?;
    let days = (months % 12) * 30 * DAY;
    any.then(|| micros.checked_add(years)?.checked_add(days))?
}

/// Canonical microseconds as `[-]HH:MM:SS` with a fraction where there is one, or of at least `digits` digits.
pub(super) fn print_time(canonical: &[u8], digits: usize, out: &mut Vec<u8>) -> bool {
    let Some(micros) = std::str::from_utf8(canonical).ok().and_then(|text| text.parse::<i64>().ok()) else { return false };
    if micros < 0 {
        out.push(b'-');
    }
    let micros = micros.unsigned_abs();
    let (seconds, fraction) = (micros / 1_000_000, micros % 1_000_000);
    out.extend_from_slice(format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60).as_bytes());
    if fraction != 0 || digits > 0 {
        out.extend_from_slice(format!(".{fraction:06}").as_bytes());
    }
    true
}

/// A canonical date or time stamp without a fraction of zeros.
pub(super) fn print_short(canonical: &[u8], out: &mut Vec<u8>) -> bool {
    out.extend_from_slice(canonical.strip_suffix(b".000000").unwrap_or(canonical));
    true
}

/// A canonical date or time stamp as PostgreSQL reads it.
pub(super) fn print_for_target(canonical: &[u8], zoned: bool, out: &mut Vec<u8>) {
    let year_zero = canonical.starts_with(b"0000-");
    out.extend_from_slice(if year_zero { b"0001" } else { canonical.get(..4).unwrap_or_default() });
    out.extend_from_slice(canonical.get(4..).unwrap_or_default());
    if zoned {
        out.extend_from_slice(b"+00");
    }
    if year_zero {
        out.extend_from_slice(b" BC");
    }
}

/// `YYYY-MM-DD` as a value.
pub(super) fn parse_date(text: &[u8]) -> Option<Date> {
    if !shaped(text, b"0000-00-00") {
        return None;
    }
    let two = |at: usize| (text[at] - b'0') * 10 + (text[at + 1] - b'0');
    let (month, day) = (two(5), two(8));
    (month <= 12 && day <= 31).then(|| Date { year: u16::from(two(0)) * 100 + u16::from(two(2)), month, day })
}

/// `YYYY-MM-DD HH:MM:SS[.f…]` as a value.
pub(super) fn parse_datetime(text: &[u8]) -> Option<DateTime> {
    let (date, rest) = text.split_at_checked(10)?;
    let (clock, fraction) = rest.split_at_checked(9)?;
    if !shaped(clock, b" 00:00:00") {
        return None;
    }
    let two = |at: usize| (clock[at] - b'0') * 10 + (clock[at + 1] - b'0');
    let (hour, minute, second) = (two(1), two(4), two(7));
    let micros = match fraction {
        [] => 0,
        [b'.', digits @ ..] if digits.len() <= 6 => whole(digits)? * 10_i64.pow(6 - digits.len() as u32),
        _ => return None,
    };
    let date = parse_date(date)?;
    (hour < 24 && minute < 60 && second < 60).then_some(DateTime { date, hour, minute, second, micros: u32::try_from(micros).ok()? })
}
