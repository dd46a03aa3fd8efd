//! Probe.
#[test]
fn probe() {
    let text = std::fs::read_to_string("/tmp/probe.txt").unwrap();
    for block in text.split("\n====\n") {
        let (p, sql) = block.split_once('\n').unwrap();
        println!("######## {p}\n{sql}\n--------");
        let result = std::panic::catch_unwind(|| crate::run(p.trim().parse().unwrap(), sql));
        match result {
            Ok(Ok(coulee_sql::Effect::Explain(t))) => println!("{t}"),
            Ok(Ok(coulee_sql::Effect::Table(t))) => println!("{t:?}"),
            Ok(Ok(e)) => println!("{e:?}"),
            Ok(Err(e)) => println!("{e}"),
            Err(_) => println!("PANIC"),
        }
    }
}
