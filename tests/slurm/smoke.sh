# What `make smoke-slurm` does on the cluster that it brings up; words are added to the sweep's.
set -e
sinfo
python -m ftx.train -m schedule.epochs=0,1,2,3 launcher=slurm hardware.nodes=2 hardware.threads=1 launcher.memory=4G \
    data.limit=500 evaluation.limit=100 model.compile=never tracking.offline=true name=slurm-smoke "$@" | tee .smoke-slurm
sweep=$(sed -n 's/^sweep: //p' .smoke-slurm)
rm .smoke-slurm
python -m ftx.sweep status "$sweep" --wait
python -m ftx.report "$sweep"
python -m ftx.report --sync "$sweep"
