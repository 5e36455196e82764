#!/bin/sh
echo "script $NAME" >> /scripts
