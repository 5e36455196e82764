#!/bin/sh
echo "dos" >> /scripts
