//! `bench [--quick] [--markdown FILE] [PART...]`: what graylag costs and how soon it tells, measured on this machine.

fn main() -> std::process::ExitCode {
    match graylag_tests::bench::main(std::env::args().skip(1)) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}
