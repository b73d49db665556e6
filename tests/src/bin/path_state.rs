//! `path_state PIN ADDRESS`: what the pinned map says of an address, as a data plane would take it. `unknown` wherever it does not say
//! anything; an exit code of 1 where the map cannot be opened.
#![allow(clippy::expect_used)] // a fixture

use std::{path::Path, process::ExitCode};

use graylag_tests::path_map::Reader;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().expect("path_state PIN ADDRESS");
    let (pin, address) = (next(), next().parse().expect("an address"));
    match Reader::open(Path::new(&pin)) {
        Ok(reader) => {
            let [receive, transmit] = reader.states(address);
            println!("{}", format!("receive {receive:?} transmit {transmit:?}").to_lowercase());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{pin}: {error}");
            ExitCode::FAILURE
        }
    }
}
