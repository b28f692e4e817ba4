//! Numbers, times and sizes as people read them.

/// `8140` → `8,140`.
pub fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `28641834` → `28.6M`: multiply-adds as the paper's tables count them.
pub fn flops(n: u64) -> String {
    match n {
        0..100_000 => format!("{:.1}k", n as f64 / 1e3),
        100_000..10_000_000 => format!("{:.2}M", n as f64 / 1e6),
        _ => format!("{:.1}M", n as f64 / 1e6),
    }
}

/// `216506` → `0.22M`.
pub fn params(n: u64) -> String {
    if n < 100_000 { format!("{:.1}k", n as f64 / 1e3) } else { format!("{:.2}M", n as f64 / 1e6) }
}

/// An error in per cent for people: two decimals.
pub fn error(percent: f64) -> String {
    if percent.is_finite() { format!("{percent:.2}") } else { "?".to_owned() }
}

/// A difference of errors for people: `+0.09`; without a sign where it rounds to nothing.
pub fn signed(points: f64) -> String {
    let text = format!("{points:+.2}");
    if text.ends_with("0.00") && text.len() == 5 { "0.00".to_owned() } else { text }
}

/// An error in per cent for machines: four decimals, of which trailing zeros go but two stay. Nothing for what is
/// not a number. Four are exact for test sets of up to a million images a decimal step.
pub fn exact(percent: f64) -> String {
    if !percent.is_finite() {
        return String::new();
    }
    let all = format!("{percent:.4}");
    let (two, rest) = all.split_at(all.len() - 2);
    let text = format!("{two}{}", rest.trim_end_matches('0'));
    // A difference of nothing has no sign.
    if text == "-0.00" { "0.00".to_owned() } else { text }
}

/// A length of time in its two largest units: `3 h 12 min`.
pub fn duration(ms: u64) -> String {
    let s = ms / 1000;
    let two = |big: u64, unit: &str, small: u64, small_unit: &str| match small {
        0 => format!("{big} {unit}"),
        _ => format!("{big} {unit} {small} {small_unit}"),
    };
    match s {
        0..60 => format!("{s} s"),
        60..600 => two(s / 60, "min", s % 60, "s"),
        600..3600 => format!("{} min", s / 60),
        3600..86400 => two(s / 3600, "h", s % 3600 / 60, "min"),
        _ => two(s / 86400, "d", s % 86400 / 3600, "h"),
    }
}

/// `170498071` → `170.5 MB`.
pub fn bytes(n: u64) -> String {
    let (mut value, mut unit) = (n as f64, "B");
    for next in ["kB", "MB", "GB", "TB"] {
        if value < 999.95 {
            break;
        }
        (value, unit) = (value / 1000.0, next);
    }
    if unit == "B" { format!("{n} B") } else { format!("{value:.1} {unit}") }
}

/// A Unix time as `2026-11-23 23:35:57`, in UTC.
pub fn utc(ms: u64) -> String {
    let s = ms / 1000;
    let (year, month, day) = civil((s / 86400) as i64);
    let (h, m, s) = (s % 86400 / 3600, s % 3600 / 60, s % 60);
    format!("{year:04}-{month:02}-{day:02} {h:02}:{m:02}:{s:02}")
}

/// Year, month and day of a day counted from 1970-01-01, by the Gregorian calendar. Years start in March here, so
/// that the leap day is the last of a year.
fn civil(days: i64) -> (i64, i64, i64) {
    let from_0000_03_01 = days + 719_468;
    let era = from_0000_03_01.div_euclid(146_097);
    let day_of_era = from_0000_03_01.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

/// `1 experiment`, `2 experiments`.
pub fn count(n: usize, what: &str) -> String {
    format!("{} {what}{}", thousands(n as u64), if n == 1 { "" } else { "s" })
}

/// Ascending numbers with their runs drawn together: `1-3 7 9-10`.
pub fn ranges(numbers: &[u64]) -> String {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for &n in numbers {
        match runs.last_mut() {
            Some((_, end)) if n == *end + 1 => *end = n,
            _ => runs.push((n, n)),
        }
    }
    let text = |(start, end): (u64, u64)| match end - start {
        0 => start.to_string(),
        _ => format!("{start}-{end}"),
    };
    runs.into_iter().map(text).collect::<Vec<_>>().join(" ")
}

/// Milliseconds since 1970.
pub fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |d| d.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(
            ["0", "999", "1,000", "1,234,567"],
            [0, 999, 1000, 1234567].map(thousands).each_ref().map(|s| s.as_str())
        );
        assert_eq!(flops(28_641_834), "28.6M");
        assert_eq!(flops(1_234_567), "1.23M");
        assert_eq!(params(216_506), "0.22M");
        assert_eq!(params(4_221_946), "4.22M");
        assert_eq!(params(14_714), "14.7k");
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(170_498_071), "170.5 MB");
        assert_eq!(bytes(999_999), "1.0 MB");
        assert_eq!(count(1, "experiment"), "1 experiment");
        assert_eq!(ranges(&[1, 2, 3, 7, 9, 10]), "1-3 7 9-10");
    }

    #[test]
    fn durations_have_two_units_at_most() {
        let said = [0, 45_000, 61_000, 720_000, 11_520_000, 183_600_000].map(duration);
        assert_eq!(said, ["0 s", "45 s", "1 min 1 s", "12 min", "3 h 12 min", "2 d 3 h"]);
    }

    #[test]
    fn times_are_utc() {
        assert_eq!(utc(0), "1970-01-01 00:00:00");
        assert_eq!(utc(951_782_400_000), "2000-02-29 00:00:00");
        assert_eq!(utc(1_795_477_557_000), "2026-11-23 23:45:57");
    }

    #[test]
    fn errors_keep_the_decimals_that_counts_have() {
        assert_eq!(exact(6.31), "6.31");
        assert_eq!([5.0, 6.3].map(exact), ["5.00", "6.30"]);
        assert_eq!(exact(100.0 * 13.0 / 600.0), "2.1667");
        assert_eq!(exact(0.125), "0.125");
        assert_eq!(exact(-0.00001), "0.00");
        assert_eq!(exact(f64::NAN), "");
        assert_eq!([0.094, -0.001, 0.0, -10.0].map(signed), ["+0.09", "0.00", "0.00", "-10.00"]);
    }
}
