//! What runs in pods: this test program with a word as its first argument.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use devenv_sandbox::{Netd, NetdOptions};

use crate::{cluster, leftovers, overlays, plain};

/// True when this process was one of the programs.
pub fn run_if_asked() -> bool {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["serve", port] => serve(port.parse().unwrap()),
        ["fetch", address] => print!("{}", fetch(address)),
        ["ask", address, question] => print!("{}", ask(address, question)),
        ["allocate", mebibytes] => {
            let memory = vec![1u8; mebibytes.parse::<usize>().unwrap() << 20];
            println!(
                "{}",
                memory.iter().map(|byte| usize::from(*byte)).sum::<usize>()
            );
        }
        ["descriptors"] => descriptors(),
        ["try-start"] => try_start(),
        ["descriptors-of-a-pod"] => descriptors_of_a_pod(),
        ["overlay-in-foreign-directory", dir] => overlays::overlay_in_foreign_directory(dir),
        ["overlay-with-mounts", dir] => overlays::overlay_with_mounts(dir),
        ["tree", marker, run_dir] => leftovers::tree(marker, run_dir),
        ["plain-tree", marker, run_dir, bare] => plain::tree(marker, run_dir, bare),
        _ => return false,
    }
    true
}

/// Answers every connection with the host name.
fn serve(port: u16) {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    for stream in TcpListener::bind(("0.0.0.0", port)).unwrap().incoming() {
        let _ = stream.unwrap().write_all(name.trim().as_bytes());
    }
}

fn fetch(address: &str) -> String {
    let mut answer = String::new();
    TcpStream::connect(address)
        .unwrap()
        .read_to_string(&mut answer)
        .unwrap();
    answer
}

fn ask(address: &str, question: &str) -> String {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    socket.send_to(question.as_bytes(), address).unwrap();
    let mut answer = [0; 100];
    let (length, from) = socket.recv_from(&mut answer).unwrap();
    assert_eq!(from.to_string(), address);
    String::from_utf8_lossy(&answer[..length]).into_owned()
}

/// Prints what each open descriptor is.
fn descriptors() {
    let mut open = Vec::new();
    for entry in fs::read_dir("/proc/self/fd").unwrap() {
        let entry = entry.unwrap();
        let fd: i32 = entry.file_name().to_str().unwrap().parse().unwrap();
        open.push((fd, fs::read_link(entry.path()).unwrap()));
    }
    open.sort();
    for (fd, target) in open {
        let target = target.display().to_string();
        // The listing itself.
        if !target.starts_with("/proc/") {
            println!("{fd} {}", target.split(':').next().unwrap());
        }
    }
}

/// Starts a cluster and prints how that went.
fn try_start() {
    let (_dir, run_dir) = cluster::temp();
    let (owner_uid, owner_gid) = cluster::me();
    match Netd::start(NetdOptions {
        run_dir,
        owner_uid,
        owner_gid,
    }) {
        Ok(_) => println!("started"),
        Err(error) => println!("{error:?}\n{error}"),
    }
}

/// What a container has open when the supervisor was started with more.
fn descriptors_of_a_pod() {
    let cluster = cluster::cluster();
    let pod = cluster.pod(2);
    let spec = cluster::container(&[cluster::PROGRAM, "descriptors"]);
    print!("{}", cluster::run(&pod, &spec).stdout);
}
