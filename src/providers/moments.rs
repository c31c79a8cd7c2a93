//! Moments: the many ways in which servers write points and lengths of time, read as plain numbers.

use std::time::SystemTime;

use super::Head;

/// A length of time such as `6m0.5s`, `20ms` or `7` (seconds), in milliseconds.
pub(super) fn duration_ms(text: &str) -> Option<f64> {
    if let Some(seconds) = finite(text) {
        return Some(seconds * 1_000.0);
    }
    let mut rest = text.trim();
    let mut total_ms = None;
    while !rest.is_empty() {
        let digits = rest.find(|char: char| !char.is_ascii_digit() && char != '.')?;
        let (number, tail) = rest.split_at(digits);
        let unit_len = tail.find(|char: char| char.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_len);
        let unit_ms = match unit {
            "d" => 86_400_000.0,
            "h" => 3_600_000.0,
            "m" => 60_000.0,
            "s" => 1_000.0,
            "ms" => 1.0,
            "us" | "µs" => 1e-3,
            "ns" => 1e-6,
            _ => return None,
        };
        total_ms = Some(total_ms.unwrap_or(0.0) + finite(number)? * unit_ms);
        rest = tail;
    }
    total_ms
}

/// The point of time that a number stands for, in seconds since 1970, if it is too large for a length: in seconds or in
/// milliseconds.
pub(super) fn epoch_s(text: &str) -> Option<f64> {
    match finite(text)? {
        epoch_ms if epoch_ms > 1e11 => Some(epoch_ms / 1_000.0),
        epoch_s if epoch_s > 1e9 => Some(epoch_s),
        _ => None,
    }
}

/// A date as HTTP writes it, in seconds since 1970.
pub(super) fn http_date_s(text: &str) -> Option<f64> {
    httpdate::parse_http_date(text).ok().and_then(since_1970_s)
}

/// When an answer was given by the server's own clock, in seconds since 1970.
pub(super) fn answered_s(head: &Head) -> Option<f64> {
    head.header("date").and_then(http_date_s)
}

/// A point of time in seconds since 1970.
pub(super) fn since_1970_s(time: SystemTime) -> Option<f64> {
    time.duration_since(SystemTime::UNIX_EPOCH).ok().map(|since| since.as_secs_f64())
}

/// A moment such as `2026-11-24T14:01:26Z`, in seconds since 1970. All who write them here do so in UTC.
pub(super) fn rfc3339_s(text: &str) -> Option<f64> {
    let (date, time) = text.trim().strip_suffix(['Z', 'z'])?.split_once(['T', 't'])?;
    let three = |text: &str, separator: char| {
        let mut parts = text.split(separator).map(|part| finite(part).filter(|number| *number >= 0.0));
        let three = (parts.next()??, parts.next()??, parts.next()??);
        parts.next().is_none().then_some(three)
    };
    let (year, month, day) = three(date, '-')?;
    let (hour, minute, second) = three(time, ':')?;
    // Years begin in March here, so that leap days come last.
    let (year, month) = if month > 2.0 { (year, month - 3.0) } else { (year - 1.0, month + 9.0) };
    let leap_days = (year / 4.0).floor() - (year / 100.0).floor() + (year / 400.0).floor();
    let days = 365.0 * year + leap_days + ((153.0 * month + 2.0) / 5.0).floor() + day - 1.0 - 719_468.0;
    Some(((days * 24.0 + hour) * 60.0 + minute) * 60.0 + second)
}

/// A number that is one.
pub(super) fn finite(text: &str) -> Option<f64> {
    text.trim().parse::<f64>().ok().filter(|number| number.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_read_in_every_unit() {
        let cases = [
            ("6m0.5s", 360_500.0),
            ("20m52.666s", 1_252_666.0),
            ("12ms", 12.0),
            ("0s", 0.0),
            ("1d2h", 93_600_000.0),
            (" 7 ", 7_000.0),
            ("500us", 0.5),
        ];
        for (text, expected_ms) in cases {
            assert_eq!(duration_ms(text), Some(expected_ms), "{text}");
        }
        for other in ["", "soon", "5 parsecs", "1h-", "s", "1..2s", "NaN", "inf", "1é"] {
            assert_eq!(duration_ms(other), None, "{other}");
        }
    }

    #[test]
    fn a_number_is_a_point_of_time_only_if_it_is_too_large_for_a_length() {
        assert_eq!(epoch_s("1784111780"), Some(1_784_111_780.0));
        assert_eq!(epoch_s("1784111780500"), Some(1_784_111_780.5));
        assert_eq!(epoch_s("86400"), None);
    }

    #[test]
    fn moments_are_read_as_seconds() {
        assert_eq!(rfc3339_s("1970-01-01T00:00:00Z"), Some(0.0));
        assert_eq!(rfc3339_s("1994-11-06T08:49:37Z"), Some(784_111_777.0));
        assert_eq!(rfc3339_s("2000-02-29T23:59:59.5Z"), Some(951_868_799.5));
        for other in ["", "soon", "2026-11-24", "2026-11-24T14:01:26+01:00", "2026-11-24T14:01Z", "a-b-cTd:e:fZ"] {
            assert_eq!(rfc3339_s(other), None, "{other}");
        }
    }
}
