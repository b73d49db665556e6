//! The kernel matrix: stock Debian kernels in QEMU, software emulation, with the static agent and the static tests.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use crate::shell::{find, output, run, say};

/// A kernel of the matrix.
struct Kernel {
    /// Debian suite.
    suite: &'static str,
    /// Version that the suite's cloud kernel has.
    version: &'static str,
    /// Where the suite is, first choice and archive.
    mirrors: &'static [&'static str],
}

const KERNELS: &[Kernel] = &[
    Kernel {
        suite: "bullseye",
        version: "5.10",
        mirrors: &["http://deb.debian.org/debian", "http://archive.debian.org/debian"],
    },
    Kernel { suite: "bookworm", version: "6.1", mirrors: &["http://deb.debian.org/debian"] },
    Kernel { suite: "trixie", version: "6.12", mirrors: &["http://deb.debian.org/debian"] },
];

/// Modules that the tests need and that these kernels do not have built in.
const MODULES: &[&str] = &[
    "veth",
    "nf_tables",
    "nft_objref",
    "nft_counter",
    "nft_reject_inet",
    "nft_reject_ipv4",
    "nft_reject_ipv6",
    "nft_numgen",
    "ipv6",
];
/// Programs that the tests start in the guest.
const PROGRAMS: &[&str] = &["ip", "nft"];
/// A guest that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(900);
/// What the guest prints last.
const PASSED: &str = "GRAYLAG-GUEST: passed";

/// Boots every kernel, or the one named, and runs the tests in it.
pub(crate) fn all(agent: &Path, tests: &[PathBuf], only: Option<&str>) -> Result<()> {
    let chosen: Vec<&Kernel> =
        KERNELS.iter().filter(|k| only.is_none_or(|only| only == k.version || only == k.suite)).collect();
    ensure!(
        !chosen.is_empty(),
        "no such kernel; there are {}",
        KERNELS.iter().map(|k| k.version).collect::<Vec<_>>().join(", ")
    );
    for kernel in chosen {
        let started = Instant::now();
        let (image, modules) = fetch(kernel)?;
        let initrd = initramfs(kernel, &modules, agent, tests)?;
        boot(kernel, &image, &initrd)?;
        say(format!("kernel {} passed in {} s", kernel.version, started.elapsed().as_secs()));
    }
    Ok(())
}

fn directory(kernel: &Kernel) -> Result<PathBuf> {
    let path = std::env::current_dir()?.join("target/kernels").join(kernel.suite);
    fs::create_dir_all(&path)?;
    Ok(path)
}

/// The kernel's image and its modules, downloaded once; apt verifies them with Debian's keys.
fn fetch(kernel: &Kernel) -> Result<(PathBuf, PathBuf)> {
    let directory = directory(kernel)?;
    let root = directory.join("root");
    if let Ok(found) = unpacked(&root) {
        return Ok(found);
    }
    let mut failure = None;
    for mirror in kernel.mirrors {
        say(format!("downloading Debian's kernel {} ({}) from {mirror}", kernel.version, kernel.suite));
        match download(kernel, mirror, &directory) {
            Ok(package) => {
                let _ = fs::remove_dir_all(&root);
                run(Command::new("dpkg-deb").arg("-x").arg(package).arg(&root))?;
                return unpacked(&root);
            }
            Err(error) => failure = Some(error),
        }
    }
    Err(failure.unwrap_or_else(|| anyhow::anyhow!("no mirror")))
        .context(format!("Debian's kernel {}", kernel.version))
}

/// A small apt of its own: nothing of the machine's configuration is touched.
fn download(kernel: &Kernel, mirror: &str, directory: &Path) -> Result<PathBuf> {
    let apt = directory.join("apt");
    let _ = fs::remove_dir_all(&apt);
    fs::create_dir_all(apt.join("lists/partial"))?;
    fs::create_dir_all(apt.join("cache/archives/partial"))?;
    fs::write(apt.join("status"), "")?;
    let keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";
    fs::write(
        apt.join("sources.list"),
        format!("deb [signed-by={keyring}] {mirror} {} main\n", kernel.suite),
    )?;
    let options = [
        format!("Dir::Etc::sourcelist={}", apt.join("sources.list").display()),
        "Dir::Etc::sourceparts=/dev/null".into(),
        "Dir::Etc::preferencesparts=/dev/null".into(),
        format!("Dir::State={}", apt.display()),
        format!("Dir::State::lists={}", apt.join("lists").display()),
        format!("Dir::State::status={}", apt.join("status").display()),
        format!("Dir::Cache={}", apt.join("cache").display()),
        "APT::Sandbox::User=root".into(),
        // Old suites are no longer signed anew; their signatures are still checked.
        "Acquire::Check-Valid-Until=false".into(),
    ];
    let apt_command = |program: &str| {
        let mut command = Command::new(program);
        options.iter().for_each(|option| {
            command.args(["-o", option]);
        });
        command
    };
    run(apt_command("apt-get").args(["update", "-qq"]))?;
    let depends = output(apt_command("apt-cache").args(["depends", "linux-image-cloud-amd64"]))?;
    let package = depends
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .find(|name| name.starts_with("linux-image-"))
        .context("linux-image-cloud-amd64 depends on no kernel")?
        .to_owned();
    run(apt_command("apt-get").args(["download", "-qq", &package]).current_dir(directory))?;
    let found = fs::read_dir(directory)?
        .flatten()
        .map(|e| e.path())
        .find(|p| p.extension().is_some_and(|e| e == "deb"));
    found.context("nothing was downloaded")
}

fn unpacked(root: &Path) -> Result<(PathBuf, PathBuf)> {
    let boot = fs::read_dir(root.join("boot"))?.flatten().map(|e| e.path());
    let image = boot
        .into_iter()
        .find(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("vmlinuz-")))
        .context("no vmlinuz")?;
    let modules = ["lib/modules", "usr/lib/modules"].map(|m| root.join(m)).into_iter().find(|m| m.is_dir());
    let modules = modules.context("no modules")?;
    let version = fs::read_dir(&modules)?.flatten().next().context("no modules")?.path();
    Ok((image, version))
}

/// busybox, the agent, the tests, what they start, and the modules they need.
fn initramfs(kernel: &Kernel, modules: &Path, agent: &Path, tests: &[PathBuf]) -> Result<PathBuf> {
    let directory = directory(kernel)?;
    let root = directory.join("initramfs");
    let _ = fs::remove_dir_all(&root);
    for path in ["bin", "proc", "sys", "dev", "tmp", "run", "etc"] {
        fs::create_dir_all(root.join(path))?;
    }
    let busybox = find("busybox").context("busybox is missing: cargo xtask setup")?;
    fs::copy(busybox, root.join("bin/busybox"))?;
    for applet in ["sh", "mount", "modprobe", "insmod", "poweroff", "cat", "mkdir", "sleep", "dmesg", "grep"]
    {
        symlink("busybox", root.join("bin").join(applet))?;
    }
    fs::copy(agent, root.join("bin/graylag"))?;
    for program in PROGRAMS {
        let path = find(program).with_context(|| format!("{program} is missing: cargo xtask setup"))?;
        with_libraries(&path, &root)?;
    }
    let mut script = String::from(INIT);
    for test in tests {
        let name = test.file_name().context("a test's name")?.to_string_lossy().into_owned();
        fs::copy(test, root.join("bin").join(&name))?;
        // Emulated processors are slow: fewer at a time, each with the patience that the tests have anyway.
        script.push_str(&format!("{name} --test-threads=3 || fail {name}\n"));
    }
    script.push_str(&format!("echo '{PASSED}'\npoweroff -f\n"));
    fs::write(root.join("init"), script)?;
    fs::set_permissions(root.join("init"), fs::Permissions::from_mode(0o755))?;
    copy_modules(modules, &root)?;

    let image = directory.join("initramfs.img");
    let mut archive = Command::new("sh");
    archive
        .args(["-c", "find . | cpio -o -H newc --quiet | gzip -1 > \"$1\"", "sh"])
        .arg(&image)
        .current_dir(&root);
    run(&mut archive)?;
    Ok(image)
}

const INIT: &str = "#!/bin/sh
export PATH=/bin RUST_BACKTRACE=0 GRAYLAG_BIN=/bin/graylag
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
mount -t tmpfs run /run; mount -t tmpfs tmp /tmp
mount -t cgroup2 none /sys/fs/cgroup; mount -t bpf bpf /sys/fs/bpf
fail() { echo \"GRAYLAG-GUEST: $1 failed\"; poweroff -f; }
for module in $(cat /etc/modules); do modprobe $module || echo \"no module $module\"; done
ip link set lo up
echo \"GRAYLAG-GUEST: $(cat /proc/version)\"
graylag check; case $? in 0|3) ;; *) fail check;; esac
";

/// A dynamically linked program with everything it is linked to.
fn with_libraries(program: &Path, root: &Path) -> Result<()> {
    let name = program.file_name().context("a program's name")?;
    fs::copy(program, root.join("bin").join(name))?;
    let libraries = output(Command::new("ldd").arg(program))?;
    for path in libraries.split_whitespace().filter(|word| word.starts_with('/')) {
        let target = root.join(path.trim_start_matches('/'));
        fs::create_dir_all(target.parent().context("a library's directory")?)?;
        fs::copy(path, target)?;
    }
    Ok(())
}

/// Modules with all they depend on, unpacked: busybox knows no compressed ones.
fn copy_modules(from: &Path, root: &Path) -> Result<()> {
    let version = from.file_name().context("the kernel's version")?;
    let base = from.ancestors().nth(3).context("the kernel's root")?;
    // Packages carry no dependency list; depmod makes it (for trees with /usr/lib as well as /lib).
    let base = if from.starts_with(base.join("lib")) { base } else { base.parent().unwrap_or(base) };
    let version_text = version.to_string_lossy();
    let depends = |module: &str| -> Result<Vec<PathBuf>> {
        let shown = output(Command::new("modprobe").args(["-d"]).arg(base).args([
            "-S",
            &version_text,
            "--show-depends",
            module,
        ]))?;
        let paths = shown.lines().filter_map(|line| line.strip_prefix("insmod "));
        Ok(paths.map(|path| PathBuf::from(path.trim())).collect())
    };
    run(Command::new("depmod").arg("-b").arg(base).arg(&*version_text))?;
    let target = root.join("lib/modules").join(version);
    fs::create_dir_all(&target)?;
    let mut present = Vec::new();
    for module in MODULES {
        // Built in, or unknown to this kernel: the tests tell.
        let Ok(paths) = depends(module) else { continue };
        if paths.is_empty() {
            continue;
        }
        for path in paths {
            let name = path.file_name().context("a module's name")?.to_string_lossy().into_owned();
            let copied = target.join(&name);
            fs::copy(&path, &copied)?;
            if name.ends_with(".xz") {
                run(Command::new("xz").arg("-df").arg(&copied))?;
            }
        }
        present.push(*module);
    }
    fs::write(root.join("etc/modules"), present.join("\n"))?;
    run(Command::new("depmod").arg("-b").arg(root).arg(&*version_text))
}

fn boot(kernel: &Kernel, image: &Path, initrd: &Path) -> Result<()> {
    let log = directory(kernel)?.join("console.log");
    say(format!("booting {}; the console is in {}", kernel.version, log.display()));
    let console = fs::File::create(&log)?;
    let mut guest = Command::new("qemu-system-x86_64")
        .args([
            "-accel",
            "tcg,thread=multi",
            "-cpu",
            "max",
            "-smp",
            "2",
            "-m",
            "1024",
            "-nographic",
            "-no-reboot",
        ])
        .arg("-kernel")
        .arg(image)
        .arg("-initrd")
        .arg(initrd)
        .args(["-append", "console=ttyS0 quiet panic=-1"])
        .stdin(Stdio::null())
        .stdout(console.try_clone()?)
        .stderr(console)
        .spawn()
        .context("qemu-system-x86_64 is missing: cargo xtask setup")?;
    let started = Instant::now();
    while guest.try_wait()?.is_none() {
        if started.elapsed() > PATIENCE {
            let _ = guest.kill();
            let _ = guest.wait();
            bail!("kernel {} did not end within {PATIENCE:?}; see {}", kernel.version, log.display());
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    let said = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
    if said.contains(PASSED) {
        return Ok(());
    }
    let lines: Vec<&str> = said.lines().collect();
    eprintln!("{}", lines[lines.len().saturating_sub(80)..].join("\n"));
    bail!("kernel {}: the tests failed; see {}", kernel.version, log.display())
}
