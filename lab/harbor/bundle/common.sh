# Functions that install.sh uses; sourced.

note() { printf 'Note: %s\n' "$*"; }
heading() { printf '\n[Step %d]: %s\n' "$((step += 1))" "$*"; }
error() { printf '✖ %s\n' "$*" >&2; }
success() { printf '✔ %s\n' "$*"; }
step=-1

check_docker() {
    local found
    if ! found=$(docker --version 2>/dev/null); then
        error 'Need to install docker(20.10.10+) first and run this script again.'
        exit 1
    fi
    # The text above asks for 20.10.10, the comparison has always been with 17.06.
    if [[ $found =~ ([0-9]+)\.([0-9]+)\.([0-9]+) ]]; then
        if ((BASH_REMATCH[1] < 17 || (BASH_REMATCH[1] == 17 && 10#${BASH_REMATCH[2]} < 6))); then
            error "Need to upgrade docker package to 20.10.10+, found: $found"
            exit 1
        fi
        note "docker version: ${BASH_REMATCH[0]}"
    fi
}

check_dockercompose() {
@until 4
    if docker-compose --version >/dev/null 2>&1; then
        DOCKER_COMPOSE=docker-compose
@end
@from 5
    if docker compose version >/dev/null 2>&1; then
        DOCKER_COMPOSE='docker compose'
    elif docker-compose --version >/dev/null 2>&1; then
        DOCKER_COMPOSE=docker-compose
@end
    else
        error 'Need to install docker-compose(1.18.0+) or a docker-compose-plugin by yourself first and run this script again.'
        exit 1
    fi
    note "compose command: $DOCKER_COMPOSE"
}
