use super::*;
use crate::kinds::{CONFIG_MAP, DEPLOYMENT, SERVICE};

fn manager(name: &str) -> Manager {
    Manager {
        name: name.to_owned(),
        subresource: String::new(),
        time: "2026-01-01T00:00:00Z".to_owned(),
    }
}

fn config(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": data})
}

fn bare(value: &Value) -> Value {
    let mut value = value.clone();
    value["metadata"]
        .as_object_mut()
        .unwrap()
        .remove("managedFields");
    value
}

fn deployment(containers: Value) -> Value {
    json!({"metadata": {"name": "d"}, "spec": {"template": {"spec": {"containers": containers}}}})
}

#[test]
fn fields_are_written_as_kubernetes_writes_them() {
    let applied = json!({"metadata": {"name": "d", "labels": {"a": "b"}, "finalizers": ["x"]},
        "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {"spec": {"containers": [
            {"name": "c", "args": ["1"], "ports": [{"containerPort": 80}]}]}}}});
    let made = apply(&DEPLOYMENT, None, &applied, &manager("m"), false).unwrap();
    let entry = &made["metadata"]["managedFields"][0];
    assert_eq!(entry["operation"], "Apply");
    assert_eq!(entry["apiVersion"], "apps/v1");
    assert_eq!(
        entry["fieldsV1"],
        json!({"f:metadata": {"f:labels": {"f:a": {}}, "f:finalizers": {"v:\"x\"": {}}},
            "f:spec": {"f:selector": {}, "f:template": {"f:spec": {"f:containers": {"k:{\"name\":\"c\"}": {
                ".": {}, "f:name": {}, "f:args": {},
                "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}}}}}}}})
    );
    let fields: Fields = flatten(&applied, schema::of(&DEPLOYMENT))
        .into_keys()
        .collect();
    assert_eq!(from_fields_v1(&to_fields_v1(&fields)), fields);
}

#[test]
fn what_the_manager_no_longer_applies_is_taken_away() {
    let m = manager("m");
    let first = apply(
        &CONFIG_MAP,
        None,
        &config(json!({"a": "1", "b": "2"})),
        &m,
        false,
    )
    .unwrap();
    let second = apply(
        &CONFIG_MAP,
        Some(&first),
        &config(json!({"b": "3"})),
        &m,
        false,
    )
    .unwrap();
    assert_eq!(bare(&second), config(json!({"b": "3"})));
    let third = apply(
        &CONFIG_MAP,
        Some(&second),
        &json!({"metadata": {"name": "c"}}),
        &m,
        false,
    )
    .unwrap();
    assert_eq!(
        third.get("data"),
        None,
        "an object that became empty goes with its last field"
    );
    assert_eq!(third["metadata"].get("managedFields"), None);
}

#[test]
fn an_object_goes_with_its_defaults_unless_someone_wants_a_part_of_it() {
    let m = manager("m");
    let probe = json!({"httpGet": {"port": 80}, "periodSeconds": 5});
    let with = deployment(json!([{"name": "c", "readinessProbe": probe}]));
    let without = deployment(json!([{"name": "c"}]));
    let mut live = apply(&DEPLOYMENT, None, &with, &m, false).unwrap();
    // What the server fills in belongs to nobody.
    let container = &mut live["spec"]["template"]["spec"]["containers"][0];
    container["terminationMessagePath"] = json!("/dev/termination-log");
    container["readinessProbe"]["httpGet"]["scheme"] = json!("HTTP");
    container["readinessProbe"]["timeoutSeconds"] = json!(1);

    let after = apply(&DEPLOYMENT, Some(&live), &without, &m, false).unwrap();
    assert_eq!(
        after["spec"]["template"]["spec"]["containers"],
        json!([{"name": "c", "terminationMessagePath": "/dev/termination-log"}])
    );
    assert_eq!(after["metadata"]["name"], "d");

    let part = json!([{"name": "c", "readinessProbe": {"timeoutSeconds": 7}}]);
    let shared = apply(
        &DEPLOYMENT,
        Some(&live),
        &deployment(part),
        &manager("n"),
        false,
    )
    .unwrap();
    let after = apply(&DEPLOYMENT, Some(&shared), &without, &m, false).unwrap();
    let container = &after["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["readinessProbe"], json!({"timeoutSeconds": 7}));
}

#[test]
fn what_someone_else_set_stays() {
    let m = manager("m");
    let first = apply(&CONFIG_MAP, None, &config(json!({"a": "1"})), &m, false).unwrap();
    let mut edited = first.clone();
    edited["data"]["by-hand"] = json!("x");
    track(
        &CONFIG_MAP,
        Some(&first),
        &mut edited,
        &manager("kubectl-edit"),
    );
    let second = apply(
        &CONFIG_MAP,
        Some(&edited),
        &config(json!({"b": "2"})),
        &m,
        false,
    )
    .unwrap();
    assert_eq!(second["data"], json!({"b": "2", "by-hand": "x"}));
}

#[test]
fn two_managers_conflict_only_where_values_differ() {
    let first = apply(
        &CONFIG_MAP,
        None,
        &config(json!({"k": "1"})),
        &manager("m1"),
        false,
    )
    .unwrap();
    let same = apply(
        &CONFIG_MAP,
        Some(&first),
        &config(json!({"k": "1"})),
        &manager("m2"),
        false,
    )
    .unwrap();
    assert_eq!(
        same["metadata"]["managedFields"].as_array().unwrap().len(),
        2
    );
    let refused = apply(
        &CONFIG_MAP,
        Some(&first),
        &config(json!({"k": "2"})),
        &manager("m2"),
        false,
    )
    .unwrap_err();
    assert_eq!(
        refused.message,
        "Apply failed with 1 conflict: conflict with \"m1\": .data.k"
    );
    let forced = apply(
        &CONFIG_MAP,
        Some(&first),
        &config(json!({"k": "2"})),
        &manager("m2"),
        true,
    )
    .unwrap();
    assert_eq!(forced["data"]["k"], "2");
    assert_eq!(
        forced["metadata"]["managedFields"]
            .as_array()
            .unwrap()
            .len(),
        1,
        "m1 owns nothing any more"
    );
    // Shared and dropped by one: the other still holds it.
    let dropped = apply(
        &CONFIG_MAP,
        Some(&same),
        &json!({"metadata": {"name": "c"}}),
        &manager("m1"),
        false,
    )
    .unwrap();
    assert_eq!(dropped["data"]["k"], "1");
}

#[test]
fn applying_the_same_again_changes_nothing() {
    let applied =
        deployment(json!([{"name": "a", "image": "1", "ports": [{"containerPort": 80}]}]));
    let m = manager("m");
    let mut live = apply(&DEPLOYMENT, None, &applied, &m, false).unwrap();
    live["spec"]["template"]["spec"]["containers"][0]["ports"][0]["protocol"] = json!("TCP");
    live["spec"]["replicas"] = json!(1);
    let later = Manager {
        time: "2027-01-01T00:00:00Z".to_owned(),
        ..m
    };
    assert_eq!(
        apply(&DEPLOYMENT, Some(&live), &applied, &later, false).unwrap(),
        live
    );
}

#[test]
fn items_of_keyed_lists_come_change_and_go() {
    let m = manager("m");
    let first = deployment(
        json!([{"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}]}, {"name": "b"}]),
    );
    let mut live = apply(&DEPLOYMENT, None, &first, &m, false).unwrap();
    live["spec"]["template"]["spec"]["containers"][0]["imagePullPolicy"] = json!("Always");
    live["spec"]["template"]["spec"]["containers"][1]["imagePullPolicy"] = json!("Always");
    let second = deployment(json!([{"name": "c"}, {"name": "a", "image": "2"}]));
    let result = apply(&DEPLOYMENT, Some(&live), &second, &m, false).unwrap();
    assert_eq!(
        result["spec"]["template"]["spec"]["containers"],
        json!([{"name": "c"}, {"name": "a", "image": "2", "imagePullPolicy": "Always"}])
    );
    // Ports of one number and two protocols are two items.
    let service = json!({"metadata": {"name": "s"}, "spec": {"ports": [
        {"name": "t", "port": 53}, {"name": "u", "port": 53, "protocol": "UDP"}]}});
    let made = apply(&SERVICE, None, &service, &m, false).unwrap();
    let one = json!({"metadata": {"name": "s"}, "spec": {"ports": [{"name": "u", "port": 53, "protocol": "UDP"}]}});
    let made = apply(&SERVICE, Some(&made), &one, &m, false).unwrap();
    assert_eq!(made["spec"]["ports"], one["spec"]["ports"]);
}

#[test]
fn an_ordinary_write_takes_over_what_it_changes() {
    let m = manager("m");
    let applied = json!({"metadata": {"name": "d"}, "spec": {"replicas": 2}});
    let live = apply(&DEPLOYMENT, None, &applied, &m, false).unwrap();
    let mut scaled = live.clone();
    scaled["spec"]["replicas"] = json!(3);
    let kubectl = Manager {
        subresource: "scale".to_owned(),
        ..manager("kubectl")
    };
    track(&DEPLOYMENT, Some(&live), &mut scaled, &kubectl);
    let without = json!({"metadata": {"name": "d", "labels": {"x": "y"}}});
    let result = apply(&DEPLOYMENT, Some(&scaled), &without, &m, false).unwrap();
    assert_eq!(
        result["spec"]["replicas"], 3,
        "what kubectl scaled is kubectl's"
    );
    let refused = apply(&DEPLOYMENT, Some(&scaled), &applied, &m, false).unwrap_err();
    assert_eq!(
        refused.message,
        "Apply failed with 1 conflict: conflict with \"kubectl\" with subresource \"scale\" using apps/v1: .spec.replicas"
    );
    assert_eq!(
        apply(&DEPLOYMENT, Some(&scaled), &applied, &m, true).unwrap()["spec"]["replicas"],
        2
    );
}

#[test]
fn managed_fields_can_be_written_and_reset() {
    let live = apply(
        &CONFIG_MAP,
        None,
        &config(json!({"a": "1"})),
        &manager("m"),
        false,
    )
    .unwrap();
    let mut reset = live.clone();
    reset["metadata"]["managedFields"] = json!([{}]);
    track(&CONFIG_MAP, Some(&live), &mut reset, &manager("x"));
    assert_eq!(reset["metadata"].get("managedFields"), None);
    let mut renamed = live.clone();
    renamed["metadata"]["managedFields"][0]["manager"] = json!("n");
    track(&CONFIG_MAP, Some(&live), &mut renamed, &manager("x"));
    assert_eq!(renamed["metadata"]["managedFields"][0]["manager"], "n");
    let mut left_out = bare(&live);
    left_out["data"]["a"] = json!("1");
    track(&CONFIG_MAP, Some(&live), &mut left_out, &manager("x"));
    assert_eq!(left_out, live);
}
