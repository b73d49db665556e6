//! Numbers for narrow columns: two or three digits that mean something, and a unit.

/// What stands where there was nothing to measure.
pub const NOTHING: &str = "-";

/// A latency in seconds: `412µs`, `1.2ms`, `123ms`, `12s`; five columns at most below a thousand seconds.
pub fn latency(seconds: Option<f64>) -> String {
    let Some(seconds) = seconds.filter(|s| s.is_finite() && *s >= 0.0) else { return NOTHING.to_owned() };
    let micros = seconds * 1e6;
    for (scale, unit) in [(1.0, "µs"), (1e3, "ms"), (1e6, "s")] {
        if rounds_below_thousand(micros / scale) {
            return digits(micros / scale) + unit;
        }
    }
    age(seconds)
}

/// A count: `999`, `1.2k`, `12k`, `3.4M`.
pub fn count(n: u64) -> String {
    if n < 1000 { n.to_string() } else { thousands(n as f64) }
}

/// Memory: `0`, `999B`, `1.2kB`, `12MB`.
pub fn bytes(n: u64) -> String {
    match n {
        0 => "0".to_owned(),
        1..1000 => format!("{n}B"),
        _ => thousands(n as f64) + "B",
    }
}

/// Something a second: `0`, `0.3`, `4.1`, `340`, `1.2k`.
pub fn rate(per_second: f64) -> String {
    if !per_second.is_finite() || per_second < 0.0 {
        NOTHING.to_owned()
    } else if per_second == 0.0 {
        "0".to_owned()
    } else if per_second < 0.05 {
        "<0.1".to_owned()
    } else {
        thousands(per_second)
    }
}

/// A share of one: `0%`, `0.02%`, `8.6%`, `97%`.
pub fn share(share: f64) -> String {
    let percent = share * 100.0;
    if !percent.is_finite() || percent < 0.0 {
        NOTHING.to_owned()
    } else if percent == 0.0 {
        "0%".to_owned()
    } else if percent < 0.005 {
        "<.01%".to_owned()
    } else if percent < 0.095 {
        format!("{percent:.2}%")
    } else {
        digits(percent) + "%"
    }
}

/// How long ago, or how long still: `9s`, `2m05s`, `3h12m`, `4d03h`.
pub fn age(seconds: f64) -> String {
    if !seconds.is_finite() {
        return NOTHING.to_owned();
    }
    let s = seconds.max(0.0) as u64;
    match s {
        0..60 => format!("{s}s"),
        60..3600 => format!("{}m{:02}s", s / 60, s % 60),
        3600..86_400 => format!("{}h{:02}m", s / 3600, s % 3600 / 60),
        _ => format!("{}d{:02}h", s / 86_400, s % 86_400 / 3600),
    }
}

/// One decimal below ten, none above.
fn digits(value: f64) -> String {
    if value < 9.95 { format!("{value:.1}") } else { format!("{value:.0}") }
}

fn thousands(value: f64) -> String {
    for (scale, unit) in [(1.0, ""), (1e3, "k"), (1e6, "M"), (1e9, "G"), (1e12, "T"), (1e15, "P")] {
        if rounds_below_thousand(value / scale) {
            return digits(value / scale) + unit;
        }
    }
    ">999P".to_owned()
}

/// 999.6 µs is 1.0 ms, not 1000 µs.
fn rounds_below_thousand(value: f64) -> bool {
    value < 999.5
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies() {
        let show = |s: f64| latency(Some(s));
        assert_eq!(latency(None), "-");
        assert_eq!(latency(Some(f64::NAN)), "-");
        assert_eq!(latency(Some(-1.0)), "-");
        assert_eq!(show(0.0), "0.0µs");
        assert_eq!(show(0.000_412), "412µs");
        assert_eq!(show(0.000_999_6), "1.0ms");
        assert_eq!(show(0.001_23), "1.2ms");
        assert_eq!(show(0.009_96), "10ms");
        assert_eq!(show(0.123_4), "123ms");
        assert_eq!(show(1.02), "1.0s");
        assert_eq!(show(63.4), "63s");
        assert_eq!(show(2000.0), "33m20s");
    }

    #[test]
    fn counts_and_rates() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1234), "1.2k");
        assert_eq!(count(999_600), "1.0M");
        assert_eq!(count(u64::MAX), ">999P");
        assert_eq!(rate(0.0), "0");
        assert_eq!(rate(0.01), "<0.1");
        assert_eq!(rate(0.25), "0.2");
        assert_eq!(rate(4.13), "4.1");
        assert_eq!(rate(340.2), "340");
        assert_eq!(rate(12_345.0), "12k");
        assert_eq!(rate(f64::INFINITY), "-");
    }

    #[test]
    fn shares() {
        assert_eq!(share(0.0), "0%");
        assert_eq!(share(0.000_01), "<.01%");
        assert_eq!(share(0.000_2), "0.02%");
        assert_eq!(share(0.086), "8.6%");
        assert_eq!(share(1.0), "100%");
        assert_eq!(share(f64::NAN), "-");
    }

    #[test]
    fn ages() {
        assert_eq!(age(0.4), "0s");
        assert_eq!(age(59.9), "59s");
        assert_eq!(age(125.0), "2m05s");
        assert_eq!(age(11_520.0), "3h12m");
        assert_eq!(age(356_400.0), "4d03h");
        assert_eq!(age(-3.0), "0s");
        assert_eq!(age(f64::NAN), "-");
    }

    #[test]
    fn columns_hold_five() {
        for exponent in -9..15 {
            for mantissa in [1.0, 1.234, 9.94, 9.96, 9.996, 99.96] {
                let value = mantissa * 10_f64.powi(exponent);
                assert!(rate(value).chars().count() <= 5, "{value}");
                assert!(count(value as u64).chars().count() <= 5, "{value}");
                if value < 999.0 {
                    assert!(latency(Some(value)).chars().count() <= 5, "{value}");
                }
                if value <= 1.0 {
                    assert!(share(value).chars().count() <= 5, "{value}");
                }
            }
        }
    }
}
