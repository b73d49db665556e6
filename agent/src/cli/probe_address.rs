//! `graylag probe tcp` and `graylag probe tls`: one round to every address, for a person. Needs no agent and no root.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::Result;
use serde::Serialize;

use super::{AddressArguments, code};
use crate::{
    model::{AddressOutcome, AddressPath, Delays, HTTPS_PORT},
    probe::address::{self, Found, Settings, resolve},
    run,
};

/// What a round came to.
#[derive(Serialize)]
struct Report<'a> {
    target: &'a str,
    kind: &'static str,
    addresses: Vec<Row>,
    /// Addresses that were not probed: too many.
    left_out: usize,
}

/// Times are milliseconds.
#[derive(Serialize)]
struct Row {
    address: String,
    attempts: u64,
    established: u64,
    refused: u64,
    reset: u64,
    timed_out: u64,
    unreachable: u64,
    tls_failed: u64,
    unsent: u64,
    repeated: u64,
    repeated_failed: u64,
    connect: Milliseconds,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<Milliseconds>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// Absent where there was nothing to measure. Quantiles are 9.5 % off at most.
#[derive(Serialize)]
struct Milliseconds {
    #[serde(skip_serializing_if = "Option::is_none")]
    p50: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p99: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max: Option<f64>,
}

impl Milliseconds {
    fn of(delays: &Delays) -> Self {
        let ms = |delay: Option<Duration>| delay.map(|delay| delay.as_secs_f64() * 1e3);
        Self { p50: ms(delays.quantile(0.5)), p99: ms(delays.quantile(0.99)), max: ms(delays.most) }
    }

    fn cells(&self) -> [String; 3] {
        [self.p50, self.p99, self.max].map(|ms| ms.map_or_else(|| "-".into(), |ms| format!("{ms:.2}")))
    }
}

impl Row {
    fn of(path: &AddressPath, tls: bool) -> Self {
        let of = |outcome| path.counts.of(outcome);
        Self {
            address: path.address.to_string(),
            attempts: path.counts.attempts(),
            established: of(AddressOutcome::Established),
            refused: of(AddressOutcome::Refused),
            reset: of(AddressOutcome::Reset),
            timed_out: of(AddressOutcome::TimedOut),
            unreachable: of(AddressOutcome::Unreachable),
            tls_failed: of(AddressOutcome::TlsFailed),
            unsent: path.unsent,
            repeated: path.repeated,
            repeated_failed: path.repeated_failed,
            connect: Milliseconds::of(&path.connect),
            tls: tls.then(|| Milliseconds::of(&path.tls)),
            reason: path.reason.clone(),
        }
    }

    /// Failures by outcome, with the names that the table has for them.
    const fn failures(&self) -> [(&'static str, u64); 6] {
        [
            ("refused", self.refused),
            ("reset", self.reset),
            ("timed out", self.timed_out),
            ("unreachable", self.unreachable),
            ("TLS failed", self.tls_failed),
            ("not sent", self.unsent),
        ]
    }
}

impl Report<'_> {
    /// Head and rows. A failure that nobody had has no column.
    fn table(&self) -> Vec<Vec<String>> {
        let had = |at: usize| self.addresses.iter().any(|address| address.failures()[at].1 > 0);
        let shown: Vec<usize> = (0..6).filter(|at| had(*at)).collect();
        let repeats = self.addresses.iter().any(|address| address.repeated > 0);
        let tls = self.addresses.iter().any(|address| address.tls.is_some());
        let mut head: Vec<String> = ["address", "attempts", "established"].map(Into::into).into();
        if let Some(any) = self.addresses.first() {
            head.extend(shown.iter().map(|at| any.failures()[*at].0.to_owned()));
        }
        if repeats {
            head.push("again, failed".into());
        }
        head.extend(["p50 ms", "p99 ms", "max ms"].map(Into::into));
        if tls {
            head.extend(["TLS p50 ms", "p99 ms", "max ms"].map(Into::into));
        }
        let row = |address: &Row| {
            let mut row =
                vec![address.address.clone(), address.attempts.to_string(), address.established.to_string()];
            row.extend(shown.iter().map(|at| address.failures()[*at].1.to_string()));
            if repeats {
                row.push(format!("{}, {}", address.repeated, address.repeated_failed));
            }
            row.extend(address.connect.cells());
            row.extend(address.tls.iter().flat_map(Milliseconds::cells));
            row
        };
        let rows = self.addresses.iter().map(row);
        std::iter::once(head).chain(rows).collect()
    }

    fn text(&self) -> String {
        let table = self.table();
        let columns = table.first().map_or(0, Vec::len);
        let width = |at: usize| table.iter().map(|row| row[at].len()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut lines = vec![format!("{} to {}", self.kind.to_uppercase(), self.target)];
        for row in &table {
            let mut cells = row.iter().zip(&widths);
            let first = cells.next().map(|(cell, width)| format!("{cell:width$}")).unwrap_or_default();
            let rest = cells.fold(String::new(), |line, (cell, width)| format!("{line}  {cell:>width$}"));
            lines.push(format!("  {first}{rest}"));
        }
        for address in &self.addresses {
            if let Some(reason) = &address.reason {
                lines.push(format!("  {}: {reason}", address.address));
            }
        }
        if self.addresses.iter().any(|address| address.repeated > 0) {
            lines.push(
                "  Again: failed attempts made once more with the same addresses and ports, and how many failed again."
                    .into(),
            );
        }
        if self.left_out > 0 {
            lines.push(format!("  {} more addresses were left out.", self.left_out));
        }
        lines.join("\n")
    }
}

/// Runs one round; the exit code is that of a failure where nothing was established.
pub fn round(arguments: &AddressArguments, tls: bool) -> Result<u8> {
    static STOP: AtomicBool = AtomicBool::new(false);
    let target = resolve::target(&arguments.target, tls.then_some(HTTPS_PORT))?;
    let AddressArguments { count, at_once, timeout, json, .. } = *arguments;
    let settings = Settings { target, tls, count, at_once, patience: timeout };
    run::on_termination(|| STOP.store(true, Ordering::Relaxed))?;
    let Found { paths, left_out } = address::round(&settings, &STOP)?;
    let report = Report {
        target: &arguments.target,
        kind: if tls { "tls" } else { "tcp" },
        addresses: paths.iter().map(|path| Row::of(path, tls)).collect(),
        left_out,
    };
    if json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        println!("{}", report.text());
    }
    let established: u64 = report.addresses.iter().map(|address| address.established).sum();
    Ok(if established > 0 { code::OK } else { code::FAILED })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_shows_what_there_is() {
        let mut good = AddressPath::new("192.0.2.1:443".parse().unwrap());
        (0..10).for_each(|_| good.counts.add(AddressOutcome::Established));
        good.connect.record(Duration::from_millis(12));
        let mut bad = AddressPath::new("[2001:db8::1]:443".parse().unwrap());
        (0..9).for_each(|_| bad.counts.add(AddressOutcome::TimedOut));
        bad.counts.add(AddressOutcome::TlsFailed);
        (bad.repeated, bad.repeated_failed) = (10, 4);
        bad.reason = Some("the certificate has expired".into());
        let addresses = [&good, &bad].map(|path| Row::of(path, false)).into();
        let report = Report { target: "lb.example:443", kind: "tcp", addresses, left_out: 3 };
        let expected = "\
TCP to lb.example:443
  address            attempts  established  timed out  TLS failed  again, failed  p50 ms  p99 ms  max ms
  192.0.2.1:443            10           10          0           0           0, 0   12.00   12.00   12.00
  [2001:db8::1]:443        10            0          9           1          10, 4       -       -       -
  [2001:db8::1]:443: the certificate has expired
  Again: failed attempts made once more with the same addresses and ports, and how many failed again.
  3 more addresses were left out.";
        assert_eq!(report.text(), expected);
    }
}
