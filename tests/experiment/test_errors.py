"""What is wrong with a configuration is said before any training, in one line that names the key and the valid ones."""

import pytest

JFB = "Known: JFB, Implicit, Neumann, Unrolled, or the class path of another AbstractBackward."

WRONG = {
    "--trainer.max_epochz 3": "unknown key trainer.max_epochz. Did you mean max_epochs? Valid: max_epochs, min_epochs, "
    "max_steps, max_time, check_val_every_n_epoch (all 41: il2o run CONFIG --print_config).",
    "--trainer.max_epoch 3": "unknown key trainer.max_epoch. Did you mean max_epochs?",
    "--calibration.p_pas 1": "unknown key calibration.p_pas. Did you mean p_pass? Valid: p_pass, p_warn, p_fail, split, "
    "resolution.",
    "--calibration.p_pass 3": "calibration: Calibration needs 0 < p_pass <= 1",
    "--calibration.split test": "calibration.split must be one of train, validation; got 'test'.",
    "--model.sise 3": "unknown key model.init_args.sise. Did you mean size? Valid: size, dropout, backward.",
    "--model.size three": "model.init_args.size must be an int; got 'three'.",
    "--model.size 0": "model: Tiny needs size >= 1; got 0.",
    "--model.size 4": "model: it fails on the first training samples: RuntimeError: mat1 and mat2",
    "--model.backward JFBx": "model.init_args.backward: there is no AbstractBackward called 'JFBx'. Did you mean JFB? "
    f"{JFB}",
    "--model.backward torch.nn.Linear": "model.init_args.backward: torch.nn.Linear is no AbstractBackward. Known: ",
    "--model.backward implicit_l2o.Neuman": "model.init_args.backward: cannot import implicit_l2o.Neuman: implicit_l2o has "
    "no Neuman. Did you mean Neumann?",
    "--model.backward Neumann --model.backward.terms 3": "unknown key model.init_args.backward.init_args.terms. Valid: k.",
    "--model.backward JFB --model.backward.k 3": "unknown key model.init_args.backward.init_args.k: JFB takes none.",
    "--model tiny.Tinny": "model: cannot import tiny.Tinny: tiny has no Tinny. Did you mean Tiny?",
    "--model tinny.Tiny": "model: cannot import tinny.Tiny: there is no module tinny here, beside the configuration or "
    "installed.",
    "--model tiny.Points": "model: tiny.Points is no AbstractTask.",
    "--data.batch_size 0": "data: batch_size must be at least 1; got 0.",
    "--trainer.accelerator tpu9": "trainer: You selected an invalid accelerator name: `accelerator='tpu9'`.",
    "--trainer.callbacks+=EarlyStoping": "trainer.callbacks[0]: there is no Callback called 'EarlyStoping'. Did you mean "
    "EarlyStopping?",
    "--trainer.callbacks+=EarlyStopping": "trainer.callbacks[0].init_args.monitor is missing; EarlyStopping takes monitor,",
    "--trainer.logger WandbLogger": "trainer.logger: wandb is not installed: pip install wandb.",
    "--trainer.logger MLFlowLogger": "trainer.logger: mlflow is not installed: pip install mlflow.",
    "--optimizer SGD --optimizer.lr fast": "optimizer.init_args.lr must be a float or Tensor; got 'fast'.",
    "--optimizer SGD --optimizer.lr -1": "optimizer: Invalid learning rate: -1.0.",
    "--statistics_every 0": "statistics_every: SolverStatistics needs every >= 1 training steps; got every=0.",
    "--weight_average 2": "weight_average: WarmWeightAverage needs 0 < decay < 1; got decay=2.0.",
    "--statistics_every null": "statistics_every must be an int; got null.",
    "--trainer.limit_test_batches 0": "trainer.limit_test_batches must not be 0: `il2o run` tests, `il2o fit` does not.",
    "--threads 0": "threads must be at least 1; got 0.",
    "--ckpt_path last": "no checkpoint runs/tiny/checkpoints/last.ckpt; runs/tiny has no checkpoint yet.",
    "--folder tiny.py": "tiny.py is a file; name another folder with --folder DIR.",
}


@pytest.mark.bad_input
@pytest.mark.parametrize("options", WRONG)
def test_a_wrong_option(options, il2o, project):
    refused = il2o("run", "tiny.yaml", *options.split())
    assert refused.code == 2
    assert refused.out == ""
    assert refused.err.startswith(f"il2o run: {WRONG[options]}")
    assert len(refused.err.splitlines()) == 1
    assert sorted(path.name for path in project.iterdir() if path.name != "__pycache__") == ["tiny.py", "tiny.yaml"]


BASE = "model: {class_path: tiny.Tiny}\ndata: {class_path: tiny.Points}\n"

FILES = {
    "": "is empty; a configuration has at least the keys model and data.",
    "# nothing\n": "is empty; a configuration has at least the keys model and data.",
    "- a\n- b\n": "must hold keys and values, such as `model: ...`; it holds a list.",
    "model: {a: [\ntrainer: 3\n": "is no YAML: line 3, column 1: expected ',' or ']', but got '<stream end>'.",
    "trainer: {max_epochs: 3}\n": "model and data must be given.",
    BASE.replace("model", "modle"): "unknown key modle. Did you mean model? Valid: model, ",
    f"{BASE}trainer: {{max_epochs: [3]}}\n": "trainer.max_epochs must be an int or null; got [3].",
    f"{BASE}trainer: 3\n": "trainer must have the keys accelerator, strategy, ",
    f"{BASE}calibration: {{p_pass: high}}\n": "calibration.p_pass must be a float; got 'high'.",
    f"{BASE}baselines: {{zero: tiny.Interupted}}\n": "baselines.zero: cannot import tiny.Interupted: tiny has no "
    "Interupted. Did you mean Interrupted?",
    f"{BASE}baselines:\n  twin: {{class_path: implicit_l2o.training.Trained, init_args: {{task: {{class_path: tiny.Tiny, "
    "init_args: {sizes: 3}}}}\n": "unknown key baselines.twin.init_args.task.init_args.sizes. Did you mean size?",
    f"{BASE}baselines:\n  twin: {{class_path: implicit_l2o.training.Trained, init_args: {{task: {{class_path: tiny.Tiny, "
    "init_args: {size: 0}}}}\n": "baselines.twin.init_args.task: Tiny needs size >= 1; got 0.",
    "model: {class_path: tiny.Tiny, arguments: {}}\ndata: {class_path: tiny.Points}\n": "unknown key model.arguments.",
    "model: {init_args: {size: 3}}\ndata: {class_path: tiny.Points}\n": "model.class_path is missing; Known: ",
}


@pytest.mark.bad_input
@pytest.mark.parametrize("text", FILES)
def test_a_wrong_file(text, il2o, project):
    (project / "wrong.yaml").write_text(text)
    refused = il2o("run", "wrong.yaml")
    assert refused.code == 2
    file = "wrong.yaml " if FILES[text].startswith(("is ", "must hold")) else ""
    assert refused.err.startswith(f"il2o run: {file}{FILES[text]}")
    assert len(refused.err.splitlines()) == 1
    assert not (project / "runs").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "nothere"], "il2o run: no configuration nothere. Experiments: "),
        (["run", "digitz"], "il2o run: no configuration digitz. Did you mean digits? Experiments: "),
        (["run", "."], "il2o run: . is a folder, not a configuration."),
        (["run", "--trainer.max_epochs", "1", "nothere"], "il2o run: no configuration nothere."),
        (["run", "tiny.yaml", "more"], "il2o run: no configuration more."),
        (["fit"], "il2o fit: model and data must be given. Name a configuration with --config FILE."),
        (["fit", "--config", "nothere"], "il2o fit: cannot read nothere: No such file or directory."),
        (
            ["fit", "--config", "tiny.yaml", "--nmae", "x"],
            "il2o fit: unknown key nmae. Did you mean name?",
        ),
        (
            ["test", "--config", "tiny.yaml"],
            "il2o test: no checkpoint runs/tiny/model.ckpt; runs/tiny has no",
        ),
        (["report", "."], "il2o report: . holds no results.json, nor summary.json; `il2o run` writes it."),
        (["report", "nothere"], "il2o report: nothere is no folder of a run; `il2o run` writes it."),
        (["certify", "nothere", "--data", "x.npz"], "il2o certify: nothere is no folder of a run."),
        (["certify", ".", "--data", "x.npz"], "il2o certify: . holds no trained model: config.yaml is missing"),
    ],
)
def test_a_wrong_command(words, message, il2o, project):
    refused = il2o(*words)
    assert refused.code == 2
    assert refused.err.startswith(message)
    assert len(refused.err.splitlines()) == 1


def test_a_module_that_does_not_load_says_where(il2o, project):
    (project / "broken_module.py").write_text("import math\n\nmath.square(3)\n")
    refused = il2o("run", "tiny.yaml", "--model", "broken_module.Task")
    assert refused.code == 2
    assert refused.err.startswith(
        "il2o run: model: cannot import broken_module.Task: AttributeError: module 'math' has no attribute 'square'. "
        "(broken_module.py, line 3)"
    )
