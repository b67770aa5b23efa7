//! The cluster's network as pods and the supervisor see it.

use std::{
    io::{Read, Write},
    net::{SocketAddrV4, TcpStream},
    os::fd::OwnedFd,
};

use devenv_sandbox::{Pod, PodEvent};

use crate::{
    Scenario,
    cluster::{Cluster, PROGRAM, cluster, container, event, eventually, ip, run, wait_readable},
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
        "an_address_can_be_taken_over_at_once",
        an_address_can_be_taken_over_at_once,
    ),
    ("sockets_come_in_any_number", sockets_come_in_any_number),
];

/// Connects a socket of the cluster's network and reads to the end.
fn fetch(cluster: &Cluster, address: SocketAddrV4) -> Option<String> {
    let socket: OwnedFd = cluster.netd.sockets(1).unwrap().remove(0);
    rustix::fs::fcntl_setfl(&socket, rustix::fs::OFlags::empty()).unwrap();
    rustix::net::connect(&socket, &address).ok()?;
    let mut answer = String::new();
    TcpStream::from(socket).read_to_string(&mut answer).ok()?;
    Some(answer)
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
    // Neither the host nor the cluster's own addresses have that port.
    assert!(
        TcpStream::connect(("127.0.0.1", 80)).is_err() || TcpStream::connect((ip(2), 80)).is_err()
    );
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
    cluster.netd.listen_tcp(address).unwrap();
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
        let pod = cluster.pod(2);
        serve(&pod, 80);
        // Until now neighbours knew the old pod's link.
        assert_eq!(
            eventually("the new pod answers", || fetch(&cluster, address)),
            "pod-2",
            "{round}"
        );
    }
}

fn sockets_come_in_any_number() {
    let cluster = cluster();
    for count in [0, 1, 64, 129] {
        assert_eq!(cluster.netd.sockets(count).unwrap().len(), count);
    }
}
