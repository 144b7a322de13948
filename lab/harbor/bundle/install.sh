#!/bin/bash
# Loads the images, runs prepare, and starts Harbor; what ran before is taken down first.

set -e
cd "$(dirname "${BASH_SOURCE[0]}")"
. ./common.sh
DOCKER_COMPOSE=

usage='Please set hostname and other necessary attributes in harbor.yml first. DO NOT use localhost or 127.0.0.1 for hostname, because Harbor needs to be accessed by external clients.
@until 8
Please set --with-notary if needs enable Notary in Harbor, and set https with certificate and private_key in harbor.yml because Notary runs under https only.
@end
@until 7
Please set --with-chartmuseum if needs enable Chartmuseum in Harbor.
@end
Please set --with-trivy if needs enable Trivy in Harbor.'

with=()
while [ $# -gt 0 ]; do
    case $1 in
        --help) note "$usage"; exit 0 ;;
        --with-trivy) with+=("$1") ;;
@until 8
        --with-notary) with+=("$1") ;;
@end
@until 7
        --with-chartmuseum) with+=("$1") ;;
@end
        *) note "$usage"; exit 1 ;;
    esac
    shift
done

heading 'checking if docker is installed ...'
check_docker
heading 'checking docker-compose is installed ...'
check_dockercompose

if [ -f harbor*.tar.gz ]; then
    heading 'loading Harbor images ...'
    docker load -i ./harbor*.tar.gz
fi

heading 'preparing environment ...'
if [ -n "$host" ]; then
    sed "s/^hostname: .*/hostname: $host/g" -i ./harbor.yml
fi

heading 'preparing harbor configs ...'
./prepare "${with[@]}"

heading 'starting Harbor ...'
@until 4
if [ -n "$($DOCKER_COMPOSE ps -q)" ]; then
    note 'stopping existing Harbor instance ...'
    $DOCKER_COMPOSE down -v
fi
@end
@from 5
note 'stopping existing Harbor instance ...'
$DOCKER_COMPOSE down -v
@end
$DOCKER_COMPOSE up -d
success '----Harbor has been installed and started successfully.----'
