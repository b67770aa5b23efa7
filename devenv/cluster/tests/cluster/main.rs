//! The whole cluster with its real parts: sandboxes, sockets, proxy, API.

mod docker;
mod http;
mod lifecycle;
mod load;
mod metrics;
mod network;
mod outside;
mod plain;
mod pods;
mod rig;
mod rollouts;
mod traffic;
mod workloads;

use std::future::Future;
use std::os::unix::fs::PermissionsExt;

use libtest_mimic::{Arguments, Failed, Trial};

fn trial<F: Future<Output = ()>>(name: &str, run: impl FnOnce() -> F + Send + 'static) -> Trial {
    Trial::test(name, move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .map_err(Failed::from)?;
        runtime.block_on(run());
        Ok(())
    })
}

/// A numeric user without an account, so that the machine's user database stays as it is.
const USER: &str = "54321";

/// Runs one test in a process of an ordinary user, from a copy of this program that it can read.
fn as_user(name: &'static str) -> Trial {
    Trial::test(format!("{name}::user"), move || {
        let dir = tempfile::tempdir()?;
        let program = dir.path().join("cluster-test");
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755))?;
        std::fs::copy(std::env::current_exe()?, &program)?;
        let output = std::process::Command::new("setpriv")
            .args(["--reuid", USER, "--regid", USER, "--clear-groups", "--"])
            .arg(&program)
            .args(["--exact", name, "--nocapture"])
            .output()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        if output.status.success() && said.contains("1 passed") {
            return Ok(());
        }
        Err(format!("as user {USER}: {}\n{said}", output.status).into())
    })
}

fn main() {
    devenv_cluster::run_role_if_asked();
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, word, dir] = arguments.as_slice()
        && word == "plain-tree"
    {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        return runtime.block_on(plain::tree(dir));
    }
    if let [_, word, dir] = arguments.as_slice()
        && word == "docker-tree"
    {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        return runtime.block_on(docker::tree(dir));
    }
    // RUST_LOG=devenv_cluster=debug tells what a failing test saw.
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .init();
    let mut arguments = Arguments::from_args();
    // Each has its own cluster and looks at the clock: side by side they would only slow each other.
    arguments.test_threads = Some(1);
    let mut trials = vec![
        trial(
            "a_deployment_is_reached_by_name_and_through_the_ingress",
            traffic::reached,
        ),
        trial(
            "a_rolling_update_under_load_loses_nothing",
            traffic::rolling_update,
        ),
        trial("rolling_updates_lose_nothing_exit", || {
            rollouts::rolling("exit")
        }),
        trial("rolling_updates_lose_nothing_ignore", || {
            rollouts::rolling("ignore")
        }),
        trial("rolling_updates_lose_nothing_slow", || {
            rollouts::rolling("slow")
        }),
        trial("a_recreate_loses_nothing", rollouts::recreate),
        trial(
            "a_version_that_never_gets_ready_serves_nobody",
            rollouts::never_ready,
        ),
        trial("the_newest_of_two_roll_outs_wins", rollouts::overtaken),
        trial(
            "requests_are_held_only_for_what_comes",
            rollouts::held_or_not,
        ),
        trial("roll_outs_stay_within_their_bounds", rollouts::bounds),
        trial("a_killed_program_costs_no_get", rollouts::killed),
        trial("kubectl_rolls_out", rollouts::kubectl),
        trial("revisions_lose_nothing", rollouts::knative),
        trial("a_service_without_endpoints_refuses", traffic::refuses),
        trial("a_host_listener_leads_to_a_service", traffic::forwarded),
        trial("pods_reach_what_lies_outside", traffic::way_out),
        trial(
            "pods_reach_the_machines_loopback_by_name",
            traffic::host_loopback,
        ),
        trial("a_built_in_address_leads_to_a_service", traffic::also_at),
        trial("datagrams_reach_a_service_and_come_back", network::udp),
        trial("services_with_many_faces", network::ports),
        trial("a_node_port_is_reached_from_both_sides", outside::node_port),
        trial(
            "a_load_balancer_has_the_projects_address",
            outside::load_balancer,
        ),
        trial("ports_that_are_taken_are_told", outside::taken),
        trial(
            "endpoints_that_a_person_wrote_carry_traffic",
            outside::endpoints,
        ),
        trial("a_client_keeps_its_endpoint", network::affinity),
        trial("names_as_programs_ask_for_them", network::names),
        trial("pods_are_told_where_services_are", network::service_links),
        trial("pods_reach_the_api_by_its_name", network::api),
        trial("a_killed_container_comes_back", workloads::killed),
        trial("configuration_reaches_the_container", workloads::configured),
        trial("configuration_changes_in_a_running_pod", workloads::live),
        trial("probes_ask_the_real_thing", workloads::probed),
        trial(
            "a_cloud_run_service_listens_on_the_host",
            workloads::knative,
        ),
        trial("deleting_takes_everything_along", workloads::deleted),
        trial("a_memory_kill_is_told_as_one", pods::out_of_memory),
        trial("programs_write_beside_their_code", pods::overlaid),
        trial("containers_end_in_order", pods::ends_in_order),
        trial(
            "a_full_disk_refuses_writes_until_it_is_lifted",
            pods::full_disk,
        ),
        trial("usage_is_told_of_processes", metrics::processes),
        trial("a_cluster_goes_on_after_a_shutdown", lifecycle::goes_on),
        trial("the_database_ends_last", lifecycle::ends_in_order),
        trial("plain::pods_are_reached_by_name", plain::reached),
        trial("plain::hard_coded_ports_take_turns", plain::takes_turns),
        trial("plain::configuration_is_elsewhere", plain::configured),
        trial("plain::probes_and_restarts", plain::probed_and_restarted),
        trial(
            "plain::sigkill_leaves_nothing",
            plain::killed_leaves_nothing,
        ),
        trial("plain::usage_is_told", metrics::plain),
        trial("plain::it_is_fallen_back_to", plain::falls_back),
        trial("plain::forbidden", plain::forbidden),
        trial("docker::pods_are_reached_by_name", docker::reached),
        trial(
            "docker::a_rolling_update_loses_nothing",
            docker::rolling_update,
        ),
        trial("docker::ends_are_told_truly", docker::told_truly),
        trial("docker::usage_is_told", docker::usage),
        trial("docker::what_is_killed_comes_back", docker::comes_back),
        trial(
            "docker::sigkill_leaves_nothing",
            docker::killed_leaves_nothing,
        ),
    ];
    if rustix::process::geteuid().is_root() {
        trials.extend(
            [
                "a_memory_kill_is_told_as_one",
                "programs_write_beside_their_code",
                "containers_end_in_order",
                "a_full_disk_refuses_writes_until_it_is_lifted",
                "usage_is_told_of_processes",
            ]
            .map(as_user),
        );
    }
    libtest_mimic::run(&arguments, trials).exit();
}
