//! Every program of the kernel object, of both builds, before the verifier of the running kernel: each on its own, with what
//! costs most switched off and with all of it switched on.
#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests are tests

use graylag::{
    config::Config,
    kernel::{
        Verdict,
        programs::{PROGRAMS, Program},
        verify,
    },
    run::kernel_settings,
};
use graylag_tests::{
    object::{Object, PROFILES},
    require_root,
};

/// Small maps: it is the programs that are tried.
const LIMITS: &str =
    "[media]\ninterfaces = [\"*\"]\n[limits]\nconnections = 256\nhalf_open = 256\npaths = 64\nflows = 256\n";
/// The code that is cut out where nobody asks for it: diagnostics, and the look at a namespace.
const EVERYTHING: &str = "[kernel]\nlog = \"debug\"\n[scope]\nnetwork_namespaces = [\"host\"]\n";

fn accepted(profile: &str, configuration: &str) {
    require_root();
    let config = Config::parse(configuration, None).expect("configuration");
    let settings = kernel_settings(&config).expect("settings");
    let verdicts = verify(Object::read(profile).bytes(), &settings).expect("the object");
    let refused: Vec<String> = verdicts
        .iter()
        .filter_map(|(name, verdict)| match verdict {
            Verdict::Refused(words) => Some(format!("{name}: {words}")),
            Verdict::Accepted | Verdict::NotForThisKernel(_) => None,
        })
        .collect();
    assert!(refused.is_empty(), "{profile}: the verifier refuses\n{}", refused.join("\n"));
    for Program { name, .. } in PROGRAMS {
        assert!(verdicts.iter().any(|(found, _)| found == name), "{profile} has no program {name}");
    }
    let accepted = |program: &&Program| {
        verdicts.iter().any(|(name, verdict)| name == program.name && *verdict == Verdict::Accepted)
    };
    let (media, others): (Vec<&Program>, Vec<&Program>) =
        PROGRAMS.iter().partition(|program| program.is_of_media());
    assert!(others.iter().copied().filter(|p| accepted(p)).count() * 2 > others.len(), "{verdicts:?}");
    // A kernel that has the helper of a program of media has all that it takes; those without any are for all kernels.
    for (helper, _) in media.iter().filter_map(|program| program.helper()) {
        let of_it: Vec<&&Program> =
            media.iter().filter(|p| p.helper().is_some_and(|(name, _)| name == helper)).collect();
        let n = of_it.iter().filter(|p| accepted(p)).count();
        assert!(n == 0 || n == of_it.len(), "{helper}: {verdicts:?}");
    }
    assert!(media.iter().filter(|p| p.helper().is_none()).all(accepted), "{verdicts:?}");
}

#[test]
fn every_program_of_both_builds_is_accepted() {
    for profile in PROFILES {
        accepted(profile, LIMITS);
    }
}

#[test]
fn every_program_of_both_builds_is_accepted_with_everything_switched_on() {
    for profile in PROFILES {
        accepted(profile, &format!("{LIMITS}{EVERYTHING}"));
    }
}

/// What the test would say if it had something to say: a program that the agent expects to be another.
#[test]
fn a_damaged_object_is_named_as_such() {
    require_root();
    let settings = kernel_settings(&Config::parse(LIMITS, None).unwrap()).unwrap();
    let mut bytes = Object::read("bpf").bytes().to_vec();
    bytes.truncate(bytes.len() / 2);
    let error = verify(&bytes, &settings).unwrap_err().to_string();
    assert!(error.starts_with("the kernel object could not be loaded: "), "{error}");
}
