use super::*;
use rstest::rstest;

const PROJECT: Ipv4Addr = Ipv4Addr::new(127, 100, 7, 9);

#[derive(Debug)]
struct Wall(u16);

#[async_trait]
impl Door for Wall {
    async fn connect(&self, _: u16) -> io::Result<TcpStream> {
        Err(io::ErrorKind::ConnectionRefused.into())
    }
    async fn fixed_ports(&self) -> Vec<u16> {
        vec![self.0]
    }
    fn name(&self) -> String {
        format!("wall {}", self.0)
    }
}

fn pod(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 244, 0, n)
}

#[rstest]
#[case([127, 64, 3, 9], [127, 64, 3, 0], [127, 192, 3, 0])]
#[case([127, 191, 255, 9], [127, 191, 255, 0], [127, 223, 255, 0])]
fn projects_have_two_ranges(
    #[case] project: [u8; 4],
    #[case] pods: [u8; 4],
    #[case] others: [u8; 4],
) {
    assert_eq!(ranges(project.into()), [pods, others].map(Ipv4Addr::from));
}

#[test]
fn pods_get_addresses_until_there_are_no_more() {
    let table = Loopback::new(PROJECT);
    let mut seen = HashSet::from([PROJECT]);
    for n in 0..253 {
        table
            .admit(pod(n), |real| {
                assert!(
                    real.octets()[..3] == [127, 100, 7] && seen.insert(real),
                    "{real}"
                );
                Arc::new(Wall(0))
            })
            .expect("free");
    }
    assert!(table.admit(pod(253), |_| Arc::new(Wall(0))).is_none());
    table.dismiss(pod(7));
    assert_eq!(table.pod(pod(7)), None);
    assert!(table.admit(pod(253), |_| Arc::new(Wall(0))).is_some());
}

#[tokio::test]
async fn a_listener_is_reached_and_a_taken_port_moves() {
    let table = Loopback::new(PROJECT);
    let service = Ipv4Addr::new(10, 96, 0, 77);
    let addr = SocketAddrV4::new(service, 31_999);
    let before = table.real(addr).expect("free");
    let listener = table.listen_tcp(addr).expect("listens");
    assert_eq!(listener.local_addr().expect("bound"), before.into());
    assert_eq!(table.real(addr), Some(before));
    table.connect(addr).await.expect("answers");

    let taken = SocketAddrV4::new(service, 31_998);
    let _other = TcpListener::bind(table.real(taken).expect("free")).expect("bound");
    let listener = table.listen_tcp(taken).expect("listens elsewhere");
    let moved = table.real(taken).expect("known");
    assert_eq!(listener.local_addr().expect("bound"), moved.into());
    assert!(moved.ip() == before.ip() && (FIRST_PORT..=LAST_PORT).contains(&moved.port()));
    table.bind_udp(taken).expect("UDP has ports of its own");
}

#[test]
fn low_ports_move_where_they_are_reserved() {
    let mut table = Loopback::new(PROJECT);
    let addr = SocketAddrV4::new(Ipv4Addr::new(10, 96, 0, 77), 80);
    table.low = 1024;
    assert_eq!(table.real(addr).expect("free").port(), 20_080);
    table.low = 0;
    assert_eq!(table.real(addr).expect("free").port(), 80);
}

#[test]
fn ports_are_given_once_and_are_free() {
    let table = Loopback::new(PROJECT);
    let ports: Vec<u16> = (0..50).map(|_| table.give_port().expect("free")).collect();
    assert_eq!(ports.iter().collect::<HashSet<_>>().len(), 50);
    assert!(
        ports
            .iter()
            .all(|p| is_free(*p) && (21_024..=LAST_PORT).contains(p))
    );
    let taken = TcpListener::bind(("0.0.0.0", ports[0])).expect("it is free");
    assert!(!is_free(ports[0]));
    drop(taken);
    table.give_back(ports[0]);
    assert!(!table.lock().given.contains(&ports[0]));
}

#[tokio::test]
async fn a_held_port_names_its_holder() {
    let table = Loopback::new(PROJECT);
    table.admit(pod(2), |_| Arc::new(Wall(5000))).expect("free");
    table.admit(pod(3), |_| Arc::new(Wall(3000))).expect("free");
    assert!(table.has_fixed_port(pod(2)).await && !table.has_fixed_port(pod(9)).await);
    assert_eq!(
        table.holder_of(5000, pod(3)).await.as_deref(),
        Some("wall 5000")
    );
    assert_eq!(table.holder_of(5000, pod(2)).await, None);
    let refused = table.connect(SocketAddrV4::new(pod(2), 1)).await;
    assert_eq!(
        refused.expect_err("a wall").kind(),
        io::ErrorKind::ConnectionRefused
    );
}
