"""Serves the policy of a checkpoint to robots, over WebSocket.

Usage:
    python serve_diffusion_policy_single_frame.py -i data/outputs/.../checkpoints/latest.ckpt -p 8000 -d cuda

See README_REMOTE_INFERENCE.md for the client, the data format, deployment and troubleshooting.
"""

import logging
from typing import Any

import click

from diffusion_policy.scripts.trust_option import trust_option

POSITIVE = click.IntRange(1)


@click.command(context_settings={"show_default": True, "help_option_names": ["--help"]})
@click.option("-i", "--input", required=True, help="Checkpoint of a training run.")
@click.option("-p", "--port", type=click.IntRange(0, 65535), default=8000, help="0: any free one, which the log says.")
@click.option("-h", "--host", default=None, help="Address to listen at.  [default: all with a key, else 127.0.0.1]")
@click.option("-d", "--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
@click.option("--num_inference_steps", type=POSITIVE, default=None, help="Denoising steps.  [default: as in training]")
@click.option("--n_action_steps", type=POSITIVE, default=None, help="Actions of an answer.  [default: as in training]")
@click.option("--precision", type=click.Choice(["float32", "bf16"]), default="float32", help="bf16: less exact.")
@click.option("--api-key", envvar="POLICY_API_KEY", default=None, help="That clients must bring; or $POLICY_API_KEY.")
@click.option("--tls-cert", default=None, help="Certificate (PEM), for wss://.")
@click.option("--tls-key", default=None, help="Its private key (PEM).")
@click.option("--debug", metavar="DIR", default=None, help="Keep requests there, for diffusion_policy.serving.inspect.")
@click.option("--max-batch", type=click.IntRange(1, 128), default=16, help="Clients answered at a time, if faster.")
@click.option("--max-wait-ms", type=click.FloatRange(0), default=2.0, help="Time a request may wait for others.")
@click.option("--max-connections", type=POSITIVE, default=64, help="Clients at a time.")
@click.option("--max-rate", type=click.FloatRange(1), default=500.0, help="Requests a second of one client.")
@click.option("--max-message-mb", type=POSITIVE, default=32, help="Size of a request.")
@trust_option
def main(max_connections: int, max_rate: float, max_message_mb: int, **options: Any) -> None:
    """Serves the policy of the checkpoint INPUT, for observations of one step or several."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        from diffusion_policy.serving.launch import ServeOptions, serve_checkpoint
        from diffusion_policy.serving.limits import Limits

        limits = Limits(max_connections=max_connections, max_rate=max_rate, max_message_bytes=max_message_mb << 20)
        serve_checkpoint(ServeOptions(limits=limits, **options))
    except (ImportError, OSError, ValueError, RuntimeError) as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
