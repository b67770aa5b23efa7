//! Over real sockets, in the wire format.

use hickory_proto::op::{MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use rstest::rstest;
use serde_json::{Value, json};

use super::*;
use crate::controllers::endpointslice::SERVICE_LABEL;
use crate::kinds;

fn store() -> Store {
    let store = Store::in_memory();
    let put = |kind, name: &str, spec: Value| {
        let object = json!({"metadata": {"name": name, "namespace": "default"}, "spec": spec});
        store.create(kind, object).expect("created");
    };
    put(
        &kinds::SERVICE,
        "web",
        json!({"clusterIP": "10.96.1.1", "ports": [{"name": "http", "port": 80}]}),
    );
    put(
        &kinds::SERVICE,
        "peers",
        json!({"clusterIP": "None", "ports": [{"name": "p", "port": 7}]}),
    );
    put(
        &kinds::SERVICE,
        "idle",
        json!({"clusterIP": "None", "ports": [{"port": 7}]}),
    );
    put(
        &kinds::SERVICE,
        "out",
        json!({"type": "ExternalName", "externalName": "example.com"}),
    );
    for (name, target) in [
        ("near", "web.default.svc.cluster.local"),
        ("gone", "nope.default.svc.cluster.local."),
        ("circle", "circle.default.svc.cluster.local"),
        ("local", "host.docker.internal"),
    ] {
        put(
            &kinds::SERVICE,
            name,
            json!({"type": "ExternalName", "externalName": target}),
        );
    }
    let endpoint = |n: usize, ready: bool| {
        let ip = format!("10.244.{}.{}", n / 250, n % 250 + 2);
        json!({"addresses": [ip], "conditions": {"ready": ready}, "hostname": if n == 0 { json!("peer-0") } else { Value::Null }})
    };
    let slice = |name: &str, service: &str, endpoints: Vec<Value>| {
        let slice = json!({
            "metadata": {"name": name, "namespace": "default", "labels": {SERVICE_LABEL: service}},
            "addressType": "IPv4", "endpoints": endpoints, "ports": [{"name": "p", "port": 7}],
        });
        store
            .create(&kinds::ENDPOINT_SLICE, slice)
            .expect("created");
    };
    slice(
        "peers",
        "peers",
        vec![endpoint(0, true), endpoint(1, true), endpoint(2, false)],
    );
    put(
        &kinds::SERVICE,
        "many",
        json!({"clusterIP": "None", "ports": [{"name": "p", "port": 7}]}),
    );
    slice(
        "many",
        "many",
        (0..200).map(|n| endpoint(n, true)).collect(),
    );
    store
}

fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(77, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name.parse::<Name>().expect("a name"), kind));
    message
}

struct Server {
    udp: SocketAddr,
    tcp: SocketAddr,
    stop: CancellationToken,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn serve(upstream: Upstream) -> Server {
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").expect("bound");
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    udp.set_nonblocking(true).expect("set");
    tcp.set_nonblocking(true).expect("set");
    let stop = CancellationToken::new();
    let server = Server {
        udp: udp.local_addr().expect("an address"),
        tcp: tcp.local_addr().expect("an address"),
        stop: stop.clone(),
    };
    tokio::spawn(Dns::new(store(), upstream).run(udp, tcp, stop));
    server
}

async fn ask_udp(server: SocketAddr, question: &Message) -> Message {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("bound");
    socket
        .send_to(&question.to_vec().expect("encodes"), server)
        .await
        .expect("sent");
    let mut buffer = vec![0; 65_535];
    let len = socket.recv(&mut buffer).await.expect("an answer");
    Message::from_vec(&buffer[..len]).expect("decodes")
}

async fn ask_tcp(server: SocketAddr, question: &Message) -> Message {
    let mut stream = TcpStream::connect(server).await.expect("connects");
    let packet = question.to_vec().expect("encodes");
    stream
        .write_u16(u16::try_from(packet.len()).expect("small"))
        .await
        .expect("sent");
    stream.write_all(&packet).await.expect("sent");
    let mut answer = vec![0; usize::from(stream.read_u16().await.expect("an answer"))];
    stream.read_exact(&mut answer).await.expect("an answer");
    Message::from_vec(&answer).expect("decodes")
}

fn data(message: &Message) -> Vec<String> {
    let mut all: Vec<String> = message.answers.iter().map(|r| r.data.to_string()).collect();
    all.sort();
    all
}

#[rstest]
#[case::service("web.default.svc.cluster.local.", RecordType::A, ResponseCode::NoError, &["10.96.1.1"])]
#[case::case_does_not_matter("WEB.Default.SVC.cluster.local.", RecordType::A, ResponseCode::NoError, &["10.96.1.1"])]
#[case::no_ipv6_is_no_data("web.default.svc.cluster.local.", RecordType::AAAA, ResponseCode::NoError, &[])]
#[case::unknown("nope.default.svc.cluster.local.", RecordType::A, ResponseCode::NXDomain, &[])]
#[case::unknown_namespace("web.nope.svc.cluster.local.", RecordType::A, ResponseCode::NXDomain, &[])]
#[case::namespace("default.svc.cluster.local.", RecordType::A, ResponseCode::NoError, &[])]
#[case::search_path("web.default.svc.svc.cluster.local.", RecordType::A, ResponseCode::NXDomain, &[])]
#[case::search_path_of_a_host("example.com.default.svc.cluster.local.", RecordType::A, ResponseCode::NXDomain, &[])]
#[case::srv("_http._tcp.web.default.svc.cluster.local.", RecordType::SRV, ResponseCode::NoError, &["0 100 80 web.default.svc.cluster.local."])]
#[case::no_such_port("_x._tcp.web.default.svc.cluster.local.", RecordType::SRV, ResponseCode::NXDomain, &[])]
#[case::headless("peers.default.svc.cluster.local.", RecordType::A, ResponseCode::NoError, &["10.244.0.2", "10.244.0.3"])]
#[case::headless_without_pods("idle.default.svc.cluster.local.", RecordType::A, ResponseCode::NoError, &[])]
#[case::member("peer-0.peers.default.svc.cluster.local.", RecordType::A, ResponseCode::NoError, &["10.244.0.2"])]
#[case::member_by_address("10-244-0-3.peers.default.svc.cluster.local.", RecordType::A, ResponseCode::NoError, &["10.244.0.3"])]
#[case::member_srv("_p._tcp.peers.default.svc.cluster.local.", RecordType::SRV, ResponseCode::NoError,
    &["0 100 7 10-244-0-3.peers.default.svc.cluster.local.", "0 100 7 peer-0.peers.default.svc.cluster.local."])]
#[case::alias("out.default.svc.cluster.local.", RecordType::CNAME, ResponseCode::NoError, &["example.com."])]
#[case::alias_without_resolver("out.default.svc.cluster.local.", RecordType::A, ResponseCode::ServFail, &["example.com."])]
#[case::alias_within("near.default.svc.cluster.local.", RecordType::A, ResponseCode::NoError, &["10.96.1.1", "web.default.svc.cluster.local."])]
#[case::alias_within_no_ipv6("near.default.svc.cluster.local.", RecordType::AAAA, ResponseCode::NoError, &["web.default.svc.cluster.local."])]
#[case::alias_of_nothing("gone.default.svc.cluster.local.", RecordType::A, ResponseCode::NXDomain, &["nope.default.svc.cluster.local."])]
#[case::alias_of_itself("circle.default.svc.cluster.local.", RecordType::CNAME, ResponseCode::NoError, &["circle.default.svc.cluster.local."])]
#[case::alias_of_the_host("local.default.svc.cluster.local.", RecordType::A, ResponseCode::NoError, &["169.254.1.2", "host.docker.internal."])]
#[case::host("host.devenv.internal.", RecordType::A, ResponseCode::NoError, &["169.254.1.2"])]
#[case::host_no_ipv6("Host.Docker.Internal.", RecordType::AAAA, ResponseCode::NoError, &[])]
#[case::pod("10-244-0-9.default.pod.cluster.local.", RecordType::A, ResponseCode::NoError, &["10.244.0.9"])]
#[case::reverse("1.1.96.10.in-addr.arpa.", RecordType::PTR, ResponseCode::NoError, &["web.default.svc.cluster.local."])]
#[case::reverse_unknown("9.9.96.10.in-addr.arpa.", RecordType::PTR, ResponseCode::NXDomain, &[])]
#[case::reverse_member("2.0.244.10.in-addr.arpa.", RecordType::PTR, ResponseCode::NoError,
    &["peer-0.many.default.svc.cluster.local.", "peer-0.peers.default.svc.cluster.local."])]
#[case::reverse_no_member("9.9.244.10.in-addr.arpa.", RecordType::PTR, ResponseCode::NXDomain, &[])]
#[case::outside_without_resolver("example.com.", RecordType::A, ResponseCode::ServFail, &[])]
#[tokio::test]
async fn names(
    #[case] name: &str,
    #[case] kind: RecordType,
    #[case] code: ResponseCode,
    #[case] expected: &[&str],
) {
    let server = serve(Upstream::default());
    for answer in [
        ask_udp(server.udp, &question(name, kind)).await,
        ask_tcp(server.tcp, &question(name, kind)).await,
    ] {
        assert_eq!(
            (answer.metadata.id, answer.metadata.response_code),
            (77, code)
        );
        assert_eq!(data(&answer), expected);
        assert_eq!(answer.queries.len(), 1);
    }
}

#[tokio::test]
async fn no_data_and_no_such_name_say_how_long_that_holds() {
    let server = serve(Upstream::default());
    for name in [
        "nope.default.svc.cluster.local.",
        "idle.default.svc.cluster.local.",
    ] {
        let answer = ask_udp(server.udp, &question(name, RecordType::A)).await;
        assert_eq!(answer.authorities.len(), 1);
        assert_eq!(answer.authorities[0].record_type(), RecordType::SOA);
    }
}

#[tokio::test]
async fn too_large_for_udp_comes_whole_over_tcp() {
    let server = serve(Upstream::default());
    let question = question("many.default.svc.cluster.local.", RecordType::A);
    let answer = ask_udp(server.udp, &question).await;
    assert!(answer.metadata.truncation);
    assert_eq!(ask_tcp(server.tcp, &question).await.answers.len(), 200);
}

#[tokio::test]
async fn names_outside_come_from_the_host_even_if_its_first_server_is_dead() {
    let dead = std::net::UdpSocket::bind("127.0.0.1:0")
        .expect("bound")
        .local_addr()
        .expect("an address");
    let resolver = UdpSocket::bind("127.0.0.1:0").await.expect("bound");
    let upstream = Upstream::new(vec![dead, resolver.local_addr().expect("an address")]);
    tokio::spawn(async move {
        let mut buffer = vec![0; 4096];
        loop {
            let (len, client) = resolver.recv_from(&mut buffer).await.expect("a question");
            let asked = Message::from_vec(&buffer[..len]).expect("decodes");
            let answer = answer::reply(&asked, ResponseCode::Refused);
            resolver
                .send_to(&answer.to_vec().expect("encodes"), client)
                .await
                .expect("sent");
        }
    });
    let server = serve(upstream);
    let answer = ask_udp(server.udp, &question("example.com.", RecordType::A)).await;
    assert_eq!(
        (answer.metadata.id, answer.metadata.response_code),
        (77, ResponseCode::Refused)
    );
}

#[tokio::test]
async fn a_name_outside_that_a_service_stands_for_is_resolved() {
    let resolver = UdpSocket::bind("127.0.0.1:0").await.expect("bound");
    let upstream = Upstream::new(vec![resolver.local_addr().expect("an address")]);
    tokio::spawn(async move {
        let mut buffer = vec![0; 4096];
        let (len, client) = resolver.recv_from(&mut buffer).await.expect("a question");
        let asked = Message::from_vec(&buffer[..len]).expect("decodes");
        assert_eq!(asked.queries[0].name().to_ascii(), "example.com.");
        let mut answer = answer::reply(&asked, ResponseCode::NoError);
        let address = RData::A("192.0.2.7".parse().expect("an address"));
        let name = asked.queries[0].name().clone();
        answer.add_answer(Record::from_rdata(name, 60, address));
        resolver
            .send_to(&answer.to_vec().expect("encodes"), client)
            .await
            .expect("sent");
    });
    let server = serve(upstream);
    let asked = question("out.default.svc.cluster.local.", RecordType::A);
    let answer = ask_udp(server.udp, &asked).await;
    assert_eq!(
        (answer.metadata.id, answer.metadata.response_code),
        (77, ResponseCode::NoError)
    );
    assert_eq!(data(&answer), ["192.0.2.7", "example.com."]);
    assert_eq!(answer.queries, asked.queries);
}

#[tokio::test]
async fn names_in_a_circle_are_given_up() {
    let server = serve(Upstream::default());
    let asked = question("circle.default.svc.cluster.local.", RecordType::A);
    let answer = ask_udp(server.udp, &asked).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
}

#[tokio::test]
async fn rubbish_is_survived() {
    let server = serve(Upstream::default());
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("bound");
    for packet in [&b""[..], b"x", &[0xff; 40]] {
        socket.send_to(packet, server.udp).await.expect("sent");
    }
    let answer = ask_udp(
        server.udp,
        &question("web.default.svc.cluster.local.", RecordType::A),
    )
    .await;
    assert_eq!(data(&answer), ["10.96.1.1"]);
}

/// The host's resolver answers nobody before everybody has asked: who is not passed on would wait.
#[tokio::test]
async fn a_crowd_of_questions_is_passed_on() {
    const CROWD: usize = 300;
    let resolver = UdpSocket::bind("127.0.0.1:0").await.expect("bound");
    let upstream = Upstream::new(vec![resolver.local_addr().expect("an address")]);
    tokio::spawn(async move {
        let mut buffer = vec![0; 4096];
        let mut asked = Vec::new();
        while asked.len() < CROWD {
            let (len, client) = resolver.recv_from(&mut buffer).await.expect("a question");
            asked.push((Message::from_vec(&buffer[..len]).expect("decodes"), client));
        }
        for (question, client) in asked {
            let answer = answer::reply(&question, ResponseCode::NXDomain);
            resolver
                .send_to(&answer.to_vec().expect("encodes"), client)
                .await
                .expect("sent");
        }
    });
    let server = serve(upstream);
    let question = question("example.com.", RecordType::A);
    let asking = (0..CROWD).map(|_| ask_udp(server.udp, &question));
    let all = tokio::time::timeout(
        Duration::from_secs(5),
        futures_util::future::join_all(asking),
    );
    for answer in all.await.expect("nobody is left waiting") {
        assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
    }
}
