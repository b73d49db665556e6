//! The Debian package of this machine's architecture: installed in a Debian, used, removed, purged; its pages and its unit.
#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests are tests

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use graylag_tests::{
    layout::{VERSION, built, here},
    proc::{Directory, Ended, finish, run},
};

const CONFIG: &str = "etc/graylag/graylag.toml";

fn package() -> PathBuf {
    built(&format!("debian/graylag_{VERSION}_{}.deb", here()))
}

/// A small Debian, unpacked (`debootstrap`, made by `cargo xtask setup`).
struct Debian(Directory);

impl Debian {
    fn new() -> Self {
        graylag_tests::require_root();
        let directory = Directory::new();
        run(Command::new("tar").arg("-xf").arg(built("debian-root.tar")).arg("-C").arg(directory.path()));
        Self(directory)
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn run(&self, command: &[&str]) -> Ended {
        let mut chroot = Command::new("chroot");
        chroot.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C");
        finish(chroot.arg(self.0.path()).args(command))
    }

    #[track_caller]
    fn prints(&self, command: &[&str]) -> String {
        let ended = self.run(command);
        assert_eq!(ended.code, Some(0), "{command:?}: {ended:?}");
        ended.out
    }

    #[track_caller]
    fn install(&self) {
        fs::copy(package(), self.path("graylag.deb")).unwrap();
        self.prints(&["dpkg", "--install", "/graylag.deb"]);
    }
}

#[test]
fn installed_used_removed_purged() {
    let debian = Debian::new();
    debian.install();

    assert_eq!(debian.prints(&["graylag", "--version"]), format!("graylag {VERSION}\n"));
    assert!(debian.prints(&["graylag", "config", "check"]).starts_with("fine: "));
    let annotated = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/graylag.toml");
    assert_eq!(fs::read(debian.path(CONFIG)).unwrap(), fs::read(annotated).unwrap());
    // Its user has no password, no shell, no home of its own.
    let user = debian.prints(&["getent", "passwd", "graylag"]);
    let fields: Vec<&str> = user.trim().split(':').collect();
    assert_eq!((fields[5], fields[6]), ("/", "/usr/sbin/nologin"), "{user}");
    assert!(fields[2].parse::<u32>().unwrap() < 1000, "{user}");
    let wanted = debian.path("etc/systemd/system/multi-user.target.wants/graylag.service");
    let unit = fs::read_link(&wanted).expect("the unit is enabled");
    assert_eq!(unit, Path::new("/lib/systemd/system/graylag.service"));
    assert_eq!(fs::metadata(debian.path("usr/bin/graylag")).unwrap().permissions().mode() & 0o7777, 0o755);

    // What somebody has written into the configuration is kept, but for a purge.
    let mine = "[node]\nname = \"mine\"\n";
    fs::write(debian.path(CONFIG), mine).unwrap();
    debian.install();
    assert_eq!(fs::read_to_string(debian.path(CONFIG)).unwrap(), mine, "an installation over it");
    debian.prints(&["dpkg", "--remove", "graylag"]);
    for gone in ["usr/bin/graylag", "lib/systemd/system/graylag.service", "usr/share/man/man1/graylag.1.gz"] {
        assert!(!debian.path(gone).exists(), "{gone}");
    }
    assert_eq!(fs::read_to_string(debian.path(CONFIG)).unwrap(), mine, "a removal");
    assert!(debian.run(&["graylag", "--version"]).code != Some(0));
    debian.prints(&["dpkg", "--purge", "graylag"]);
    for gone in ["etc/graylag", "etc/default/graylag"] {
        assert!(!debian.path(gone).exists(), "{gone} after the purge");
    }
    assert!(fs::symlink_metadata(wanted).is_err(), "the unit is enabled no more");
    let known = debian.run(&["dpkg-query", "--status", "graylag"]);
    assert!(known.code != Some(0) || !known.out.contains("installed"), "{known:?}");
}

/// A page and completions are made from the command line's own declaration; here they are asked.
#[test]
fn the_manual_and_the_completions_know_every_command() {
    let directory = Directory::new();
    run(Command::new("dpkg-deb").arg("--extract").arg(package()).arg(directory.path()));
    let program = directory.path().join("usr/bin/graylag");
    let help = finish(Command::new(&program).arg("--help")).out;
    let commands = help.split("Commands:").nth(1).unwrap().split("\n\n").next().unwrap();
    let commands: Vec<&str> = commands.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert!(commands.len() > 8 && commands.contains(&"run"), "{commands:?}");
    for command in commands.iter().filter(|command| **command != "help") {
        let page = directory.path().join(format!("usr/share/man/man1/graylag-{command}.1.gz"));
        let page = finish(Command::new("gzip").arg("-dc").arg(&page)).out;
        assert!(page.contains(&format!("graylag\\-{command}")), "{command}: {page}");
    }
    let completion = directory.path().join("usr/share/bash-completion/completions/graylag");
    let completed = |words: &str, at: usize| {
        let script = format!(
            "source \"$1\"; COMP_WORDS=({words}); COMP_CWORD={at}; _graylag graylag '' ''; echo \"${{COMPREPLY[@]}}\""
        );
        let said = finish(Command::new("bash").args(["-c", &script, "bash"]).arg(&completion));
        assert_eq!(said.code, Some(0), "{said:?}");
        said.out.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let offered = completed("graylag ''", 1);
    assert!(commands.iter().all(|command| offered.iter().any(|word| word == command)), "{offered:?}");
    assert!(completed("graylag run --", 2).contains(&"--config".to_owned()));
    for (shell, file) in [
        ("zsh", "usr/share/zsh/vendor-completions/_graylag"),
        ("fish", "usr/share/fish/vendor_completions.d/graylag.fish"),
    ] {
        let text = fs::read_to_string(directory.path().join(file)).unwrap();
        let same = finish(Command::new(&program).args(["completions", shell])).out;
        assert_eq!(text, same, "{shell}");
    }
}

/// `systemd-analyze security` counts what a unit leaves open, from 0 to 10; the threshold is in tenths.
#[test]
fn the_unit_leaves_little_open() {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/systemd/graylag.service");
    let judge = |threshold: &str| {
        let arguments = ["security", "--offline=true", "--no-pager", threshold];
        finish(Command::new("systemd-analyze").args(arguments).arg(&unit))
    };
    let judged = judge("--threshold=25");
    assert_eq!(judged.code, Some(0), "{}", judged.out);
    assert!(judge("--threshold=5").code != Some(0), "the judge can say no");
    println!("{}", judged.out.lines().last().unwrap_or_default());
}
