//! Every kind of leftover, made on purpose: the inventory must see it.
//!
//! What would change the host (links, mounts, routes, rules) is made in
//! namespaces of the test's own thread, and the inventory looks from there.

mod leaks {
    use devenv_tests::inventory::{Inventory, Kind, Left, Scope};
    use devenv_tests::{find_tool, skip};
    use nix::sched::{CloneFlags, unshare};
    use std::fs;
    use std::net::{IpAddr, TcpListener, UdpSocket};
    use std::os::unix::net::UnixListener;
    use std::path::{Path, PathBuf};
    use std::process::{Child, Command, Stdio};
    use std::time::{Duration, Instant};

    const SHORT: Duration = Duration::from_millis(100);
    const LONG: Duration = Duration::from_secs(5);

    struct Place {
        folder: tempfile::TempDir,
    }

    impl Place {
        fn new() -> Self {
            let folder = tempfile::Builder::new()
                .prefix("bb-leak-")
                .tempdir()
                .unwrap();
            fs::create_dir_all(folder.path().join(".devenv/run")).unwrap();
            Self { folder }
        }

        fn path(&self) -> &Path {
            self.folder.path()
        }

        fn scope(&self) -> Scope {
            Scope::new(self.path(), Path::new("/nonexistent/devenv"))
        }
    }

    fn wait(before: &Inventory, scope: &Scope, limit: Duration) -> Result<Duration, Left> {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap()
            .block_on(before.nothing_left(scope, limit))
    }

    /// Nothing is left, then `leak` is made and seen, then it is mended and
    /// nothing is left again.
    fn caught<T>(scope: &Scope, kind: Kind, leak: impl FnOnce() -> T, mend: impl FnOnce(T)) {
        let before = Inventory::take(scope);
        wait(&before, scope, SHORT).unwrap_or_else(|left| panic!("at the start: {left}"));
        let leaked = leak();
        let left = wait(&before, scope, SHORT).expect_err("the leak was not seen");
        assert!(left.has(kind), "{kind:?} is not in: {left}");
        mend(leaked);
        wait(&before, scope, LONG).unwrap_or_else(|left| panic!("after mending: {left}"));
    }

    fn quiet(program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    fn end(mut child: Child) {
        child.kill().unwrap();
        child.wait().unwrap();
    }

    fn kill(pid: u32) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    }

    /// Waits for a file that a child writes when it is where it should be.
    fn wait_for(file: &Path) -> String {
        let deadline = Instant::now() + LONG;
        loop {
            match fs::read_to_string(file) {
                Ok(text) if text.ends_with('\n') => return text.trim().to_owned(),
                _ => assert!(
                    Instant::now() < deadline,
                    "{} did not appear",
                    file.display()
                ),
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Runs `body` on a thread with namespaces of its own; `false` where that is
    /// not allowed.
    fn apart(flags: CloneFlags, body: impl FnOnce() + Send + 'static) -> bool {
        std::thread::spawn(move || {
            if let Err(error) = unshare(flags) {
                skip(&format!(
                    "namespaces of one's own are not allowed here: {error}"
                ));
                return false;
            }
            body();
            true
        })
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    #[test]
    fn a_daemon_in_the_projects_folder_is_seen() {
        let place = Place::new();
        let pid = place.path().join("pid");
        caught(
            &place.scope(),
            Kind::Process,
            || {
                // A session of its own, no parent, no environment.
                let script = "setsid sh -c 'echo $$ > pid; exec env -i sleep 300' &";
                let status = quiet("sh", &["-c", script])
                    .current_dir(place.path())
                    .status();
                assert!(status.unwrap().success());
                wait_for(&pid).parse().unwrap()
            },
            kill,
        );
    }

    #[test]
    fn a_process_that_only_names_the_project_in_its_environment_is_seen() {
        let place = Place::new();
        let project = place.path().to_path_buf();
        caught(
            &place.scope(),
            Kind::Process,
            || {
                quiet("sleep", &["300"])
                    .current_dir("/")
                    .env("DB_SOCKET", project.join(".devenv/run/db.sock"))
                    .spawn()
                    .unwrap()
            },
            end,
        );
    }

    #[test]
    fn a_process_of_the_devenv_binary_is_seen_even_when_its_file_is_gone() {
        let place = Place::new();
        let elsewhere = Place::new();
        let binary = elsewhere.path().join("devenv");
        fs::copy(find_tool("sleep").unwrap(), &binary).unwrap();
        let scope = Scope::new(place.path(), &binary);
        caught(
            &scope,
            Kind::Process,
            || {
                let child = quiet(&binary.to_string_lossy(), &["300"])
                    .current_dir("/")
                    .spawn()
                    .unwrap();
                // The program is only running once its exec is over.
                let program = PathBuf::from(format!("/proc/{}/exe", child.id()));
                let deadline = Instant::now() + LONG;
                while fs::read_link(&program).ok().as_ref() != Some(&binary) {
                    assert!(Instant::now() < deadline);
                    std::thread::yield_now();
                }
                fs::remove_file(&binary).unwrap();
                child
            },
            end,
        );
    }

    #[test]
    fn what_hides_its_origin_is_seen_when_it_was_learned_before() {
        let place = Place::new();
        let mut scope = place.scope();
        let elsewhere = Place::new();
        let pid = elsewhere.path().join("pid");
        let before = Inventory::take(&scope);
        // Stands for the supervisor; its child leaves folder and environment and,
        // when the parent dies, the parent too.
        let script = format!(
            "cd /; env -i setsid sh -c 'echo $$ > {}; exec sleep 300' & wait",
            pid.display()
        );
        let supervisor = quiet("sh", &["-c", &script]).spawn().unwrap();
        let hidden: u32 = wait_for(&pid).parse().unwrap();
        scope.learn(supervisor.id());
        end(supervisor);
        let left = wait(&before, &scope, SHORT).expect_err("the hidden child was not seen");
        assert!(left.has(Kind::Process), "{left}");
        kill(hidden);
        wait(&before, &scope, LONG).unwrap_or_else(|left| panic!("after mending: {left}"));
    }

    #[test]
    fn a_namespace_held_by_a_stranger_is_seen_when_it_was_learned() {
        let place = Place::new();
        let mut scope = place.scope();
        let before = Inventory::take(&scope);
        let elsewhere = Place::new();
        let [inner, outer] = ["inner", "outer"].map(|name| elsewhere.path().join(name));
        let holder = quiet("unshare", &["--net", "sh", "-c"])
            .arg(format!("echo $$ > {}; exec sleep 300", inner.display()))
            .spawn();
        let Ok(mut holder) = holder else {
            return skip("no unshare here");
        };
        std::thread::sleep(Duration::from_millis(50));
        if holder.try_wait().unwrap().is_some() {
            return skip("a network namespace of one's own is not allowed here");
        }
        let pid = wait_for(&inner);
        scope.learn(pid.parse().unwrap());
        // A stranger moves in, and the one that was learned dies.
        let stranger = quiet("nsenter", &["--net", "-t", &pid, "sh", "-c"])
            .arg(format!("echo $$ > {}; exec sleep 300", outer.display()))
            .spawn()
            .unwrap();
        wait_for(&outer);
        end(holder);
        let left = wait(&before, &scope, SHORT).expect_err("the namespace was not seen");
        assert!(left.has(Kind::Namespace), "{left}");
        assert!(!left.has(Kind::Process), "{left}");
        end(stranger);
        wait(&before, &scope, LONG).unwrap_or_else(|left| panic!("after mending: {left}"));
    }

    #[test]
    fn listeners_on_the_projects_address_are_seen_whoever_holds_them() {
        let place = Place::new();
        let address: IpAddr = "127.83.7.9".parse().unwrap();
        let scope = place.scope().address(address);
        caught(
            &scope,
            Kind::Socket,
            || TcpListener::bind((address, 0)).unwrap(),
            drop,
        );
        caught(
            &scope,
            Kind::Socket,
            || UdpSocket::bind((address, 0)).unwrap(),
            drop,
        );
    }

    #[test]
    fn a_unix_socket_in_the_project_is_seen() {
        let place = Place::new();
        let path = place.path().join("db.sock");
        caught(
            &place.scope(),
            Kind::Socket,
            || UnixListener::bind(&path).unwrap(),
            drop,
        );
    }

    #[test]
    fn a_file_in_run_is_seen_unless_it_is_left_out() {
        let place = Place::new();
        let file = place.path().join(".devenv/run/pods/api1");
        let leak = || {
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, "half written").unwrap();
        };
        caught(&place.scope(), Kind::RunFile, leak, |()| {
            fs::remove_dir_all(file.parent().unwrap()).unwrap();
        });
        let scope = place.scope().without(Kind::RunFile);
        let before = Inventory::take(&scope);
        leak();
        wait(&before, &scope, SHORT).unwrap();
    }

    #[test]
    fn a_temporary_file_that_names_devenv_is_seen() {
        let place = Place::new();
        let file = std::env::temp_dir().join(format!("devenv-leak-{}", std::process::id()));
        caught(
            &place.scope(),
            Kind::TemporaryFile,
            || fs::write(&file, "").unwrap(),
            |()| fs::remove_file(&file).unwrap(),
        );
    }

    #[test]
    fn a_mount_is_seen() {
        let place = Place::new();
        apart(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_FS, move || {
            use nix::mount::{MntFlags, MsFlags, mount, umount2};
            let none = None::<&str>;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
            let at = place.path().join("mnt");
            fs::create_dir(&at).unwrap();
            caught(
                &place.scope(),
                Kind::Mount,
                || mount(Some("leak"), &at, Some("tmpfs"), MsFlags::empty(), none).unwrap(),
                |()| umount2(&at, MntFlags::MNT_DETACH).unwrap(),
            );
        });
    }

    #[test]
    fn a_link_is_seen() {
        let place = Place::new();
        apart(CloneFlags::CLONE_NEWNET, move || {
            let ip = find_tool("ip").expect("iproute2 is installed by `cargo xtask needs`");
            let ip = ip.to_string_lossy().into_owned();
            caught(
                &place.scope(),
                Kind::Link,
                || {
                    let made = quiet(&ip, &["link", "add", "leak0", "type", "bridge"]).status();
                    assert!(made.unwrap().success());
                },
                |()| {
                    let gone = quiet(&ip, &["link", "del", "leak0"]).status();
                    assert!(gone.unwrap().success());
                },
            );
        });
    }

    #[test]
    fn a_route_is_seen() {
        let place = Place::new();
        apart(CloneFlags::CLONE_NEWNET, move || {
            let ip = find_tool("ip").expect("iproute2 is installed by `cargo xtask needs`");
            let ip = ip.to_string_lossy().into_owned();
            let up = quiet(&ip, &["link", "set", "lo", "up"]).status();
            assert!(up.unwrap().success());
            let route = ["route", "add", "203.0.113.0/24", "dev", "lo"];
            caught(
                &place.scope(),
                Kind::Rule,
                || assert!(quiet(&ip, &route).status().unwrap().success()),
                |()| {
                    let gone = quiet(&ip, &["route", "del", "203.0.113.0/24"]).status();
                    assert!(gone.unwrap().success());
                },
            );
        });
    }

    #[test]
    fn a_packet_filter_rule_is_seen() {
        let Some(nft) = find_tool("nft") else {
            println!("not run: there is no nft here, and then no rule can be listed");
            return;
        };
        let place = Place::new();
        apart(CloneFlags::CLONE_NEWNET, move || {
            let nft = nft.to_string_lossy().into_owned();
            caught(
                &place.scope(),
                Kind::Rule,
                || {
                    let made = quiet(&nft, &["add", "table", "ip", "leak"]).status();
                    assert!(made.unwrap().success());
                },
                |()| {
                    let gone = quiet(&nft, &["delete", "table", "ip", "leak"]).status();
                    assert!(gone.unwrap().success());
                },
            );
        });
    }

    #[test]
    fn a_cgroup_is_seen() {
        let place = Place::new();
        let name = format!("devenv-leak-{}", std::process::id());
        let folder = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"]
            .map(|hierarchy| Path::new(hierarchy).join(&name))
            .into_iter()
            .find(|folder| fs::create_dir(folder).is_ok());
        let Some(folder) = folder else {
            // Only root may make one.
            println!("not run: this user may not make a cgroup");
            return;
        };
        fs::remove_dir(&folder).unwrap();
        caught(
            &place.scope(),
            Kind::Cgroup,
            || fs::create_dir(&folder).unwrap(),
            |()| fs::remove_dir(&folder).unwrap(),
        );
    }

    #[test]
    fn a_shared_memory_segment_of_a_learned_process_is_seen() {
        let Some(_) = find_tool("ipcmk") else {
            return skip("no ipcmk here");
        };
        let place = Place::new();
        let mut scope = place.scope();
        let elsewhere = Place::new();
        let [go, made, done] = ["go", "made", "done"].map(|name| elsewhere.path().join(name));
        // exec: the learned process itself makes the segment.
        let script = format!(
            "read line < {0}; exec ipcmk -M 4096 > {1}",
            go.display(),
            made.display()
        );
        nix::unistd::mkfifo(&go, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let mut maker = quiet("sh", &["-c", &script]).spawn().unwrap();
        scope.learn(maker.id());
        let before = Inventory::take(&scope);
        fs::write(&go, "now\n").unwrap();
        maker.wait().unwrap();
        let id = wait_for(&made).rsplit(' ').next().unwrap().to_owned();
        let left = wait(&before, &scope, SHORT);
        let gone = quiet("ipcrm", &["-m", &id]).status().unwrap();
        fs::write(&done, "").unwrap();
        assert!(gone.success());
        let left = left.expect_err("the segment was not seen");
        assert!(left.has(Kind::Ipc), "{left}");
    }

    #[test]
    fn a_zombie_and_a_strangers_process_are_not_leftovers() {
        let place = Place::new();
        let scope = place.scope();
        let before = Inventory::take(&scope);
        let stranger = quiet("sleep", &["300"]).current_dir("/").spawn().unwrap();
        let mut zombie = quiet("true", &[])
            .current_dir(place.path())
            .spawn()
            .unwrap();
        let seen = wait(&before, &scope, LONG);
        end(stranger);
        zombie.wait().unwrap();
        seen.unwrap_or_else(|left| panic!("{left}"));
    }
}
