#!/bin/sh
# Makes one authority and a certificate for each of the services a and b in the folder that is named, unless they are
# there. Each serves as server (by its service's name) and as client (by its common name).
set -eu
umask 077
cd "$1"
[ -f b.pem ] && exit 0

new_key() {
    openssl ecparam -name secp384r1 -genkey -noout -out "$1"
}

new_key ca.key
openssl req -x509 -new -sha384 -days 365 -key ca.key -out ca.pem -subj "/CN=tombolo compose authority" \
    -addext "basicConstraints=critical,CA:TRUE,pathlen:0" -addext "keyUsage=critical,keyCertSign,cRLSign"

for service in a b; do
    new_key "$service.key"
    openssl req -new -sha384 -key "$service.key" -out "$service.csr" -subj "/CN=cluster-$service"
    cat > "$service.ext" <<EXTENSIONS
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth, clientAuth
subjectAltName = DNS:$service
EXTENSIONS
    openssl x509 -req -sha384 -days 365 -in "$service.csr" -CA ca.pem -CAkey ca.key -CAcreateserial \
        -extfile "$service.ext" -out "$service.pem"
    rm "$service.csr" "$service.ext"
done
