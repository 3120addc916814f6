#!/usr/bin/env bash
# Installs the servers and tools that the tests use, where they are missing. On a
# fresh Debian machine it needs root; elsewhere it says what to install.
set -euo pipefail

# command:package that brings it
needed=(
	slapd:slapd
	slapcat:slapd
	ldapsearch:ldap-utils
	ldapmodify:ldap-utils
	htpasswd:apache2-utils
	openssl:openssl
	ssh-keygen:openssh-client
	pwck:passwd
	git:git
	strace:strace
	mkfs.ext4:e2fsprogs
	mount:mount
)

PATH="$PATH:/usr/sbin:/sbin"
missing=()
for entry in "${needed[@]}"; do
	command -v "${entry%%:*}" >/dev/null || missing+=("${entry##*:}")
done
# slapd's overlays come in slapd itself; contrib modules do not.
if ((${#missing[@]} == 0)); then
	exit 0
fi
packages=$(printf '%s\n' "${missing[@]}" | sort -u | tr '\n' ' ')
if ! command -v apt-get >/dev/null || ((EUID != 0)); then
	echo "tests need these packages: $packages" >&2
	echo "install them, or run this as root on Debian" >&2
	exit 1
fi
export DEBIAN_FRONTEND=noninteractive
# Tests start their own servers: none of these packages should start one.
if [[ ! -e /usr/sbin/policy-rc.d ]]; then
	printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
	chmod +x /usr/sbin/policy-rc.d
	trap 'rm -f /usr/sbin/policy-rc.d' EXIT
fi
apt-get update -qq
# shellcheck disable=SC2086
apt-get install -y -qq --no-install-recommends $packages >/dev/null
