# Functions to source: a Docker daemon on a machine that may have none, and the image of the Kafka broker.

docker_answers() { docker info >/dev/null 2>&1; }

install_docker() { # only what is missing; needs a Debian-like system and its administrator
  if command -v dockerd iptables busybox >/dev/null; then return; fi
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends docker.io iptables busybox-static >/dev/null
}

start_docker() { # starts a daemon unless one answers; remembers it in $dockerd_pid, its log in $1
  dockerd_pid=
  if docker_answers; then return; fi
  install_docker
  dockerd >"$1" 2>&1 </dev/null &
  dockerd_pid=$!
  for _ in $(seq 150); do
    if docker_answers; then return; fi
    if ! kill -0 "$dockerd_pid" 2>/dev/null; then break; fi
    sleep 0.2
  done
  echo "dockerd did not start; its log ends with:" >&2
  tail -n 20 "$1" >&2
  return 1
}

stop_docker() { # only the daemon that start_docker started
  if [ -z "${dockerd_pid:-}" ]; then return; fi
  kill "$dockerd_pid" 2>/dev/null || true
  wait "$dockerd_pid" 2>/dev/null || true
  dockerd_pid=
}

ensure_kafka_image() { # builds $1 unless the daemon has it
  if docker image inspect "$1" >/dev/null 2>&1; then return; fi
  .ci/kafka-image/build "$1"
}
