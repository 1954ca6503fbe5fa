//! Moments as RFC 3339 text, to the second and in UTC, as EMQX's API writes them.

const DAY: u64 = 86_400;
/// 9999-12-31T23:59:59Z: the last moment with a year of four digits.
const LAST: u64 = 253_402_300_799;

/// Writes a moment of the Unix clock; what is later than the year 9999 is written as its end.
#[must_use]
pub fn format(unix_s: u64) -> String {
    let unix_s = unix_s.min(LAST);
    let (year, month, day) = date_of(unix_s / DAY);
    let of_day = unix_s % DAY;
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Reads a moment, with `Z` or an offset. `None` if it is none, or before 1970.
#[must_use]
pub fn parse(text: &str) -> Option<u64> {
    if !text.is_ascii() {
        return None;
    }
    let (date, rest) = text.split_at_checked(10)?;
    let rest = rest.strip_prefix(['T', 't', ' '])?;
    let (time, zone) = rest.split_at_checked(8)?;
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let [hour, minute, second] = numbers(time, ':', [2, 2, 2])?;
    let zone = match zone.strip_prefix('.') {
        Some(fraction) => {
            let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
            fraction.get(digits..).filter(|_| digits > 0)?
        }
        None => zone,
    };
    let offset = offset_of(zone)?;
    let days = days_of(year, month, day)?;
    // A leap second is the one after it.
    let valid = hour < 24 && minute < 60 && second <= 60;
    let local = days * DAY + hour * 3600 + minute * 60 + second;
    local.checked_add_signed(-offset).filter(|_| valid)
}

/// Seconds that local time is ahead of UTC.
fn offset_of(zone: &str) -> Option<i64> {
    if zone.eq_ignore_ascii_case("z") {
        return Some(0);
    }
    let (sign, rest) = match zone.split_at_checked(1)? {
        ("+", rest) => (1, rest),
        ("-", rest) => (-1, rest),
        _ => return None,
    };
    let [hours, minutes] = numbers(rest, ':', [2, 2])?;
    let seconds = i64::try_from(hours * 3600 + minutes * 60).ok()?;
    (hours < 24 && minutes < 60).then_some(sign * seconds)
}

/// Numbers of so many digits each, with `between` between them.
fn numbers<const N: usize>(text: &str, between: char, digits: [usize; N]) -> Option<[u64; N]> {
    let mut parts = text.split(between);
    let mut numbers = [0; N];
    for (number, digits) in numbers.iter_mut().zip(digits) {
        let part = parts.next().filter(|part| part.len() == digits)?;
        *number = part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse().ok())??;
    }
    parts.next().is_none().then_some(numbers)
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn days_of_month(year: u64, month: u64) -> u64 {
    match month {
        2 => 28 + u64::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 to the first day of a year.
fn days_to_year(year: u64) -> u64 {
    let leaps = |year: u64| year / 4 - year / 100 + year / 400;
    (year - 1970) * 365 + leaps(year - 1) - leaps(1969)
}

fn days_of(year: u64, month: u64, day: u64) -> Option<u64> {
    if year < 1970 || !(1..=12).contains(&month) || day == 0 || day > days_of_month(year, month) {
        return None;
    }
    let before: u64 = (1..month).map(|month| days_of_month(year, month)).sum();
    Some(days_to_year(year) + before + day - 1)
}

fn date_of(days: u64) -> (u64, u64, u64) {
    // At most one too many: a year has 365 days or more.
    let mut year = 1970 + days / 365;
    while days_to_year(year) > days {
        year -= 1;
    }
    let mut left = days - days_to_year(year);
    let mut month = 1;
    while left >= days_of_month(year, month) {
        left -= days_of_month(year, month);
        month += 1;
    }
    (year, month, left + 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_moments() {
        let table = [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_614_000_000, "2021-02-22T13:20:00Z"),
            (1_635_170_927, "2021-10-25T14:08:47Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (LAST, "9999-12-31T23:59:59Z"),
        ];
        for (unix_s, text) in table {
            assert_eq!(format(unix_s), text);
            assert_eq!(parse(text), Some(unix_s), "{text}");
        }
        assert_eq!(format(u64::MAX), "9999-12-31T23:59:59Z");
    }

    #[test]
    fn offsets_fractions_and_what_is_none() {
        for text in ["2021-10-25T22:08:47+08:00", "2021-10-25t14:08:47.25z", "2021-10-25 12:38:47-01:30"] {
            assert_eq!(parse(text), Some(1_635_170_927), "{text}");
        }
        for text in [
            "",
            "infinity",
            "2021-10-25",
            "2021-10-25T14:08:47",
            "2021-13-25T14:08:47Z",
            "2021-02-29T14:08:47Z",
            "2021-10-25T24:08:47Z",
            "2021-10-25T14:60:47Z",
            "2021-10-25T14:08:47.Z",
            "2021-10-25T14:08:47+25:00",
            "1969-12-31T23:59:59Z",
            "1970-01-01T00:00:00+01:00",
            "+021-10-25T14:08:47Z",
            "2021-10-25T14:08:47Z ",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(unix_s in 0..=LAST) {
            prop_assert_eq!(parse(&format(unix_s)), Some(unix_s));
        }

        #[test]
        fn no_text_panics(text in ".{0,40}", digits in "[0-9:T+Z.-]{0,30}") {
            let _ = (parse(&text), parse(&digits));
        }
    }
}
