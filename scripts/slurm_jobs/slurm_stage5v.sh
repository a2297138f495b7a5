#!/bin/bash
# Stage 5, ensemble: five folds, one task each; other numbers with --array.
# Run from the project's folder, with the environment of fvc active: sbatch scripts/slurm_jobs/slurm_stage5v.sh
# Made by "fvc submit scripts": change the site's settings after sbatch, e.g. --partition=a100, or in the profile of "fvc submit".
#SBATCH --job-name=fvc_stage5v
#SBATCH --partition=gpu
#SBATCH --array=1-5
#SBATCH --cpus-per-task=4
#SBATCH --mem=4G
#SBATCH --time=0:12:00
#SBATCH --signal=B:USR1@120
#SBATCH --output=logs/stage5/stage5v-%j.out
#SBATCH --error=logs/stage5/stage5v-%j.err
#SBATCH --open-mode=append
#SBATCH --export=PATH,HOME,USER,LANG,LC_ALL,LD_LIBRARY_PATH,PYTHONPATH,VIRTUAL_ENV,TMPDIR,SLURM_CONF,OMP_NUM_THREADS,MLFLOW_TRACKING_URI,FVC_USE,FVC_WEIGHTS,FVC_DEBUG,FVC_NUM_FRAMES,FVC_N_SPLITS,FVC_USE_TRACKING,FVC_STAGE2_OUTPUT_DIR,FVC_STAGE3_OUTPUT_DIR,FVC_STAGE4_OUTPUT_DIR,FVC_STAGE5_OUTPUT_DIR,FVC_DATA
#SBATCH --requeue
exec fvc task ensemble "$SLURM_ARRAY_TASK_ID" --part stage5v --gpus 0 -- train ensemble --folds "$SLURM_ARRAY_TASK_ID" --workers 1
