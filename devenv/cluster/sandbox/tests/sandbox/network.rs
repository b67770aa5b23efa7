//! The cluster's network as pods and the supervisor see it.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddrV4, TcpStream},
    os::fd::OwnedFd,
    time::Duration,
};

use rustix::net::sockopt::{Timeout, set_socket_timeout};

use devenv_sandbox::{Limits, Pod, PodEvent, PodSpec};

use crate::{
    Scenario,
    cluster::{
        Cluster, PATIENCE, PROGRAM, cluster, container, event, eventually, ip, run, shell,
        wait_readable,
    },
};

pub const SCENARIOS: &[Scenario] = &[
    (
        "pods_share_a_port_and_reach_each_other",
        pods_share_a_port_and_reach_each_other,
    ),
    (
        "the_supervisor_answers_cluster_ips",
        the_supervisor_answers_cluster_ips,
    ),
    (
        "connections_out_arrive_with_their_destination",
        connections_out,
    ),
    (
        "the_gateway_keeps_its_hardware_address",
        the_gateway_stays_known,
    ),
    (
        "an_address_can_be_taken_over_at_once",
        an_address_can_be_taken_over_at_once,
    ),
    ("sockets_come_in_any_number", sockets_come_in_any_number),
];

/// Connects a socket of the cluster's network and reads to the end.
fn fetch(cluster: &Cluster, address: SocketAddrV4) -> Option<String> {
    let socket: OwnedFd = cluster.netd.sockets(1).unwrap().remove(0);
    rustix::fs::fcntl_setfl(&socket, rustix::fs::OFlags::empty()).unwrap();
    // Linux applies it to connect as well.
    set_socket_timeout(&socket, Timeout::Send, Some(Duration::from_secs(3))).unwrap();
    rustix::net::connect(&socket, &address).ok()?;
    let mut answer = String::new();
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    match stream.read_to_string(&mut answer) {
        Ok(_) => Some(answer),
        Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("{address} went silent"),
        Err(_) => None,
    }
}

fn serve(pod: &Pod, port: u16) {
    pod.start(&container(&[PROGRAM, "serve", &port.to_string()]))
        .unwrap();
}

fn pods_share_a_port_and_reach_each_other() {
    let cluster = cluster();
    let pods = [2, 3].map(|n| cluster.pod(n));
    for pod in &pods {
        serve(pod, 80); // a low port, by an ordinary user too
    }
    for n in [2, 3] {
        let address = SocketAddrV4::new(ip(n), 80);
        assert_eq!(
            eventually("a pod answers", || fetch(&cluster, address)),
            format!("pod-{n}")
        );
    }
    let client = cluster.pod(4);
    for n in [2, 3] {
        let mut spec = container(&[PROGRAM, "fetch", &format!("{}:80", ip(n))]);
        spec.name = format!("client-{n}");
        assert_eq!(run(&client, &spec).stdout, format!("pod-{n}"));
    }
    // The host has no route there (10.244.0.0, as the kernel prints it).
    let routes = std::fs::read_to_string("/proc/net/route").unwrap();
    assert!(!routes.contains("0000F40A"), "{routes}");
}

fn the_supervisor_answers_cluster_ips() {
    let cluster = cluster();
    let pod = cluster.pod(2);
    let listener = cluster
        .netd
        .listen_tcp("10.96.7.20:3306".parse().unwrap())
        .unwrap();
    pod.start(&container(&[PROGRAM, "fetch", "10.96.7.20:3306"]))
        .unwrap();
    wait_readable(&listener);
    let (mut stream, from) = listener.accept().unwrap();
    assert_eq!(from.ip(), ip(2));
    stream.write_all(b"hello").unwrap();
    drop(stream);
    assert!(matches!(event(&pod), PodEvent::Exited { .. }));

    let dns = cluster
        .netd
        .bind_udp("10.96.0.10:53".parse().unwrap())
        .unwrap();
    let started = pod
        .start(&container(&[PROGRAM, "ask", "10.96.0.10:53", "who?"]))
        .unwrap();
    wait_readable(&dns);
    let mut question = [0; 100];
    let (length, from) = dns.recv_from(&mut question).unwrap();
    assert_eq!(&question[..length], b"who?");
    dns.send_to(b"you", from).unwrap();
    assert_eq!(
        crate::cluster::collect(started.stdout).join().unwrap(),
        "you"
    );

    // A taken address is an error that names it; a freed one can be had again.
    let address = "10.96.7.20:3306".parse().unwrap();
    let taken = cluster.netd.listen_tcp(address).unwrap_err().to_string();
    assert!(taken.contains("10.96.7.20:3306"), "{taken}");
    drop(listener);
    // A child that another test has just forked may hold a copy until its exec.
    eventually("a freed address can be had again", || {
        cluster.netd.listen_tcp(address).ok()
    });
}

fn connections_out() {
    let cluster = cluster();
    let listener = cluster.netd.way_out().unwrap();
    let pod = cluster.pod(2);
    let started = pod
        .start(&container(&[PROGRAM, "fetch", "203.0.113.7:443"]))
        .unwrap();
    wait_readable(&listener);
    let (mut stream, _) = listener.accept().unwrap();
    let wanted = socket2::SockRef::from(&stream).original_dst_v4().unwrap();
    assert_eq!(wanted.as_socket().unwrap().to_string(), "203.0.113.7:443");
    stream.write_all(b"from outside").unwrap();
    drop(stream);
    assert_eq!(
        crate::cluster::collect(started.stdout).join().unwrap(),
        "from outside"
    );
    assert!(matches!(event(&pod), PodEvent::Exited { .. }));
    // Pods and Services are not redirected: nothing listens there.
    let refused = run(&pod, &container(&[PROGRAM, "fetch", "10.96.9.9:80"]));
    assert!(refused.stderr.contains("refused"), "{refused:?}");
}

fn an_address_can_be_taken_over_at_once() {
    let cluster = cluster();
    let address = SocketAddrV4::new(ip(2), 80);
    for round in 0..5 {
        let hostname = format!("round-{round}");
        let spec = PodSpec {
            hostname: hostname.clone(),
            ip: ip(2),
            files: vec![],
            limits: Limits::default(),
            tmpfs: vec![],
        };
        let pod = cluster.netd.create_pod(&spec).unwrap();
        serve(&pod, 80);
        // Neighbours knew the old pod's link until now, which may still be there.
        let answer = eventually("the new pod answers", || fetch(&cluster, address));
        assert_eq!(answer, hostname);
        pod.kill();
        assert_eq!(event(&pod), PodEvent::PodGone);
    }
}

/// A bridge takes the lowest hardware address of its ports unless it has its
/// own. Pods that knew the address of a port that went lost their gateway.
fn the_gateway_stays_known() {
    let cluster = cluster();
    let address = "10.96.0.1:80".parse().unwrap();
    let _listener = cluster.netd.listen_tcp(address).unwrap();
    let mut others = Vec::new();
    for n in 2..6 {
        let pod = cluster.pod(n);
        // The connection is established by the kernel's backlog.
        let script = "exec bash -c 'exec 3<>/dev/tcp/10.96.0.1/80; cat /proc/net/arp'";
        let ran = run(&pod, &shell(script));
        assert!(ran.stdout.contains("02:42:0a:f4:00:01"), "{ran:?}");
        others.push(pod);
    }
}

fn sockets_come_in_any_number() {
    let cluster = cluster();
    for count in [0, 1, 64, 129] {
        assert_eq!(cluster.netd.sockets(count).unwrap().len(), count);
    }
}
