"""`python ray_runner.py SWEEP ROOT ADDRESS GPUS` runs a study of trainer.py's cells on a Ray cluster;
`python ray_runner.py cluster CPUS...` is one, of a head without CPUs and a node for each number, on this machine.

The cluster kills its last node without a farewell for each line of its input.
"""

import sys


def cluster(nodes):
    from ray.cluster_utils import Cluster

    small = {"object_store_memory": 80 << 20, "include_dashboard": False}
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **small})
    added = [made.add_node(num_cpus=int(cpus), num_gpus=1, object_store_memory=80 << 20) for cpus in nodes]
    made.wait_for_nodes()
    print(made.address, flush=True)
    for _ in sys.stdin:
        made.remove_node(added.pop(), allow_graceful=False)
        print("gone", flush=True)
    made.shutdown()


def run(sweep, root, address, gpus):
    import trainer

    from vitexp.study.run.processes import RayEngine
    from vitexp.study.run.runner import run_study
    from vitexp.study.spec import read_study

    outcome = run_study(
        read_study(sweep),
        parse=trainer.parse,
        train=trainer.train,
        root=root,
        extra=["--run.root", root],
        preload=["vitexp.record"],
        engine=RayEngine(trainer.train, modules=["vitexp.record"], address=address, gpus=float(gpus)),
        resume=["--ckpt_path", "last"],
    )
    sys.exit(outcome.exit_status)


if __name__ == "__main__":
    cluster(sys.argv[2:]) if sys.argv[1] == "cluster" else run(*sys.argv[1:])
