#!/bin/sh
# Makes the certificates of the two-cluster example beside this script, in certs/: one authority, and one
# certificate for each cluster that serves as server and as client. ECDSA P-384, valid for one year.
set -eu
umask 077

cd "$(dirname "$0")"
mkdir -p certs
cd certs

new_key() {
    openssl ecparam -name secp384r1 -genkey -noout -out "$1"
}

new_key ca.key
openssl req -x509 -new -sha384 -days 365 -key ca.key -out ca.pem -subj "/CN=tombolo example authority" \
    -addext "basicConstraints=critical,CA:TRUE,pathlen:0" -addext "keyUsage=critical,keyCertSign,cRLSign"

for cluster in a b; do
    new_key "$cluster.key"
    openssl req -new -sha384 -key "$cluster.key" -out "$cluster.csr" -subj "/CN=cluster-$cluster"
    cat > "$cluster.ext" <<EXTENSIONS
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth, clientAuth
subjectAltName = DNS:localhost, IP:127.0.0.1
EXTENSIONS
    openssl x509 -req -sha384 -days 365 -in "$cluster.csr" -CA ca.pem -CAkey ca.key -CAcreateserial \
        -extfile "$cluster.ext" -out "$cluster.pem"
    rm "$cluster.csr" "$cluster.ext"
done
