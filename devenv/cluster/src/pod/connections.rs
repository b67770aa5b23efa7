//! Connections that a pod's servers hold, from the kernel's own list.
//!
//! A pod that was taken out of the routes may still be answering: its end waits
//! for that, for a moment. The kernel tells of no event, so this is asked for.

use std::collections::HashSet;

/// States of the list, in hexadecimal as it has them.
const ESTABLISHED: &str = "01";
const LISTEN: &str = "0A";

/// Connections of the network namespace of process `pid` that others opened to its listeners.
/// None when the process is gone.
pub(super) fn inbound(pid: u32) -> usize {
    let read =
        |name: &str| std::fs::read_to_string(format!("/proc/{pid}/net/{name}")).unwrap_or_default();
    count(&[read("tcp"), read("tcp6")])
}

/// Connections of this machine that others opened to these ports.
pub(super) fn inbound_at(ports: &HashSet<u16>) -> usize {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/net/{name}"));
    let tables = ["tcp", "tcp6"].map(|name| read(name).unwrap_or_default());
    let is_one = |entry: &Entry<'_>| {
        let port = u16::from_str_radix(entry.local_port, 16);
        entry.state == ESTABLISHED && port.is_ok_and(|port| ports.contains(&port))
    };
    let lines = tables.iter().flat_map(|table| table.lines().skip(1));
    lines.filter_map(parse).filter(is_one).count()
}

/// One line of the list.
struct Entry<'a> {
    local_port: &'a str,
    remote: &'a str,
    state: &'a str,
}

fn parse(line: &str) -> Option<Entry<'_>> {
    let mut words = line.split_whitespace().skip(1);
    let (_, local_port) = words.next()?.split_once(':')?;
    let (remote, _) = words.next()?.split_once(':')?;
    Some(Entry {
        local_port,
        remote,
        state: words.next()?,
    })
}

fn count(tables: &[String]) -> usize {
    let entries: Vec<Entry<'_>> = tables
        .iter()
        .flat_map(|table| table.lines().skip(1))
        .filter_map(parse)
        .collect();
    let listening: HashSet<&str> = entries
        .iter()
        .filter(|e| e.state == LISTEN)
        .map(|e| e.local_port)
        .collect();
    entries
        .iter()
        .filter(|e| e.state == ESTABLISHED && listening.contains(e.local_port))
        .filter(|e| !is_loopback(e.remote))
        .count()
}

/// 127.0.0.0/8 as IPv4 or inside IPv6, or ::1; in the machine's byte order, as the list has it.
fn is_loopback(address: &str) -> bool {
    let last = address
        .get(address.len().saturating_sub(8)..)
        .and_then(|word| u32::from_str_radix(word, 16).ok());
    let is_v6_one = address.len() == 32 && address.starts_with(&"0".repeat(24));
    last.is_some_and(|word| {
        word.to_ne_bytes()[0] == 127 || (is_v6_one && u32::from_be_bytes(word.to_ne_bytes()) == 1)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_others_opened_to_a_listener_counts() {
        // As a little-endian machine writes it; the words are swapped for a big-endian one.
        let word = |bytes: [u8; 4]| format!("{:08X}", u32::from_ne_bytes(bytes));
        let (pod, proxy, own, any) = (
            word([10, 244, 0, 2]),
            word([10, 244, 0, 1]),
            word([127, 0, 0, 1]),
            word([0; 4]),
        );
        let mapped = format!("{}{}{}", "0".repeat(16), word([0, 0, 255, 255]), proxy);
        let tcp = format!(
            "  sl  local_address rem_address   st\n\
             0: {any}:1388 {any}:0000 0A\n\
             1: {pod}:1388 {proxy}:D431 01\n\
             2: {own}:1388 {own}:D432 01\n\
             3: {pod}:D433 {proxy}:0CEA 01\n\
             4: {pod}:1388 {proxy}:D434 06\n"
        );
        let tcp6 = format!("  sl\n0: {mapped}:1388 {mapped}:D435 01\nrubbish\n");
        assert_eq!(count(&[tcp, tcp6]), 2);
        assert_eq!(inbound(u32::MAX), 0);
    }

    #[test]
    fn the_kernels_list_is_understood() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
        let before = inbound(std::process::id());
        let _client = std::net::TcpStream::connect(listener.local_addr().expect("an address"))
            .expect("connects");
        // Over loopback: seen, and not counted.
        assert_eq!(inbound(std::process::id()), before);
        let port = listener.local_addr().expect("an address").port();
        let _server = listener.accept().expect("accepted");
        assert_eq!(inbound_at(&HashSet::from([port])), 1);
        assert_eq!(inbound_at(&HashSet::new()), 0);
    }
}
